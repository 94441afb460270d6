//! What refers to an image: the referrers API, or the tag that stands in for it.
//!
//! Format: OCI distribution specification 1.1, "Listing Referrers" and "Referrers
//! Tag Schema". A registry without the API answers 404; real ones also answer with
//! other refusals. Neither the list nor its descriptors are believed: they only say
//! where to look. cosign 3 gives its artifacts the type of an empty one in the tag's
//! index, so those are looked at, too.

use agent_image_registry::{Answer, Digest, Document, FetchError, IndexEntry};

use super::{
    bundle::MEDIA_TYPE,
    case::{Case, SIGNATURES_MAX},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const LIST_MAX_BYTES: u64 = 4 * 1024 * 1024;
const PAGES_MAX: usize = 8;

/// The manifests that refer to this digest and may hold a bundle.
pub(super) fn of(case: &Case<'_>, digest: &Digest) -> Result<Vec<Digest>, FetchError> {
    let mut found = Vec::new();
    let mut path = format!("referrers/{digest}");
    for page in 0..PAGES_MAX {
        let answer = match case.fetch(&path, Some(INDEX), LIST_MAX_BYTES) {
            Ok(answer) => answer,
            Err(error) if page == 0 && is_without_api(&error) => return by_tag(case, digest),
            Err(error) => return Err(error),
        };
        match index(&answer) {
            Some(entries) => add(&mut found, &entries),
            None if page == 0 => return by_tag(case, digest),
            None => break,
        }
        match answer
            .link
            .as_deref()
            .and_then(|link| next(link, &case.resolved.source.repository))
        {
            Some(next) if found.len() < SIGNATURES_MAX => path = next,
            _ => break,
        }
    }
    Ok(found)
}

fn is_without_api(error: &FetchError) -> bool {
    match error {
        FetchError::NotFound { .. } => true,
        FetchError::Status { status, .. } => matches!(status, 400 | 405 | 406 | 501),
        _ => false,
    }
}

fn by_tag(case: &Case<'_>, digest: &Digest) -> Result<Vec<Digest>, FetchError> {
    let answer = case.manifest(&digest.as_str().replacen(':', "-", 1))?;
    let mut found = Vec::new();
    add(
        &mut found,
        &answer.as_ref().and_then(index).unwrap_or_default(),
    );
    Ok(found)
}

fn index(answer: &Answer) -> Option<Vec<IndexEntry>> {
    match Document::parse(&answer.body, answer.content_type.as_deref()) {
        Ok(Document::Index(entries)) => Some(entries),
        _ => None,
    }
}

fn add(found: &mut Vec<Digest>, entries: &[IndexEntry]) {
    let may_be_bundle = |entry: &&IndexEntry| {
        let kind = entry.artifact_type.as_deref();
        entry.media_type == MANIFEST && kind.is_none_or(|kind| kind == MEDIA_TYPE || kind == EMPTY)
    };
    let room = SIGNATURES_MAX.saturating_sub(found.len());
    let fitting = entries.iter().filter(may_be_bundle);
    found.extend(fitting.take(room).map(|entry| entry.digest.clone()));
}

/// The path of the next page below the repository, from a `Link` header (RFC 8288).
fn next(link: &str, repository: &str) -> Option<String> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("rel=\"next\"") && !parameters.contains("rel=next") {
        return None;
    }
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.get(rest.find('/')?..)?,
        None => target,
    };
    let below = path
        .strip_prefix("/v2/")?
        .strip_prefix(repository)?
        .strip_prefix('/')?;
    below.starts_with("referrers/").then(|| below.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_in_the_same_repository() {
        for (link, found) in [
            (
                r#"</v2/a/b/referrers/d?n=1&last=x>; rel="next""#,
                Some("referrers/d?n=1&last=x"),
            ),
            (
                r#"<https://r.example/v2/a/b/referrers/d?n=1>;rel=next"#,
                Some("referrers/d?n=1"),
            ),
            (r#"</v2/a/b/referrers/d>; rel="prev""#, None),
            (r#"</v2/other/referrers/d>; rel="next""#, None),
            (r#"</v2/a/b/blobs/d>; rel="next""#, None),
            ("", None),
            ("<", None),
            ("<https://r.example>; rel=next", None),
        ] {
            assert_eq!(next(link, "a/b").as_deref(), found, "{link}");
        }
    }
}
