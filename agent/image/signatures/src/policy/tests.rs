//! Which policies are accepted, and which requirement decides on which image.

use super::*;

const ACCEPT: &str = r#"[{"type":"insecureAcceptAnything"}]"#;
const REJECT: &str = r#"[{"type":"reject"}]"#;

fn policy(default: &str, docker: &str) -> Result<SignaturePolicy, PolicyError> {
    let text = format!(r#"{{"default":{default},"transports":{{"docker":{{{docker}}}}}}}"#);
    SignaturePolicy::parse(text.as_bytes())
}

fn scope_of(policy: &SignaturePolicy, image: &str) -> String {
    let (scope, _) = policy.of(&Reference::parse(image).unwrap());
    scope
}

#[test]
fn the_most_specific_scope_wins() {
    let mut scopes = vec![
        "r.b.example:5000/team/app:1",
        "r.b.example:5000/team/app",
        "r.b.example:5000/team",
        "r.b.example:5000",
        "*.b.example",
        "*.example",
        "",
    ];
    while !scopes.is_empty() {
        let docker: Vec<String> = scopes
            .iter()
            .map(|scope| format!("\"{scope}\":{REJECT}"))
            .collect();
        let policy = policy(ACCEPT, &docker.join(",")).unwrap();
        let found = scope_of(&policy, "r.b.example:5000/team/app:1");
        assert_eq!(found, format!("scope `docker:{}`", scopes.remove(0)));
    }
    let bare = SignaturePolicy::parse(format!(r#"{{"default":{REJECT}}}"#).as_bytes()).unwrap();
    assert_eq!(scope_of(&bare, "r.example/app"), "default");
}

#[test]
fn scopes_end_where_names_end() {
    let docker = [
        "r.example/team",
        "r.example/app:1",
        "*.sub.example",
        "docker.io/library/busybox",
    ]
    .map(|scope| format!("\"{scope}\":{REJECT}"));
    let policy = policy(ACCEPT, &docker.join(",")).unwrap();
    for (image, scope) in [
        ("r.example/teams/app", "default"),
        ("r.example/app:2", "default"),
        ("r.example/app:1", "scope `docker:r.example/app:1`"),
        ("sub.example/app", "default"),
        ("a.b.sub.example:99/app", "scope `docker:*.sub.example`"),
        ("busybox", "scope `docker:docker.io/library/busybox`"),
        ("[::1]:5000/app", "default"),
    ] {
        assert_eq!(scope_of(&policy, image), scope, "{image}");
    }
}

#[test]
fn other_transports_are_read_and_mean_nothing() {
    let text = format!(r#"{{"default":{REJECT},"transports":{{"oci":{{"":{ACCEPT}}}}}}}"#);
    let policy = SignaturePolicy::parse(text.as_bytes()).unwrap();
    assert_eq!(scope_of(&policy, "r.example/app"), "default");
    let broken = text.replace(ACCEPT, "[]");
    assert!(matches!(
        SignaturePolicy::parse(broken.as_bytes()),
        Err(PolicyError::Empty(_))
    ));
}

#[test]
fn every_requirement_and_identity_is_read() {
    let key = r#""keyPath":"/k""#;
    for requirement in [
        format!(r#"{{"type":"signedBy","keyType":"GPGKeys",{key}}}"#),
        r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k","kbs:///a/b/c"]}"#.to_owned(),
        r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"YWJj"}"#.to_owned(),
        r#"{"type":"sigstoreSigned","keyDatas":["YWJj","YWJj"]}"#.to_owned(),
        r#"{"type":"sigstoreSigned","keyData":"-----BEGIN PUBLIC KEY-----\n"}"#.to_owned(),
        format!(r#"{{"type":"sigstoreSigned",{key},"signedIdentity":{{"type":"matchExact"}}}}"#),
        format!(
            r#"{{"type":"sigstoreSigned",{key},"signedIdentity":{{"type":"matchRepository"}}}}"#
        ),
        format!(
            r#"{{"type":"sigstoreSigned",{key},"signedIdentity":{{"type":"matchRepoDigestOrExact"}}}}"#
        ),
        format!(
            r#"{{"type":"sigstoreSigned",{key},"signedIdentity":{{"type":"exactReference","dockerReference":"a/b:1"}}}}"#
        ),
        format!(
            r#"{{"type":"sigstoreSigned",{key},"signedIdentity":{{"type":"exactRepository","dockerRepository":"a/b"}}}}"#
        ),
        format!(
            r#"{{"type":"sigstoreSigned",{key},"signedIdentity":{{"type":"remapIdentity","prefix":"a.example","signedPrefix":"b.example/c"}}}}"#
        ),
    ] {
        policy(&format!("[{requirement}]"), "").unwrap();
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let signed = r#""type":"signedBy","keyType":"GPGKeys""#;
    let sigstore = r#""type":"sigstoreSigned","keyPath":"/k""#;
    for (requirement, part) in [
        (r#"{"type":"signedBaseLayer"}"#.to_owned(), "not known"),
        (
            r#"{"type":"reject","keyPath":"/k"}"#.to_owned(),
            "no other members",
        ),
        (r#"{"type":"reject","more":1}"#.to_owned(), "cannot be read"),
        (
            r#"{"type":"reject","type":"reject"}"#.to_owned(),
            "cannot be read",
        ),
        (format!("{{{signed}}}"), "exactly one of"),
        (
            format!(r#"{{{signed},"keyPath":"/k","keyData":"YQ=="}}"#),
            "exactly one of",
        ),
        (format!(r#"{{{signed},"keyPaths":[]}}"#), "empty"),
        (format!(r#"{{{signed},"keyPath":"k"}}"#), "keyPath"),
        (format!(r#"{{{signed},"keyPath":"https://k"}}"#), "keyPath"),
        (format!(r#"{{{signed},"keyData":"?"}}"#), "base64"),
        (
            r#"{"type":"signedBy","keyPath":"/k"}"#.to_owned(),
            "keyType",
        ),
        (
            r#"{"type":"signedBy","keyType":"X509CAs","keyPath":"/k"}"#.to_owned(),
            "GPGKeys",
        ),
        (
            r#"{"type":"sigstoreSigned","fulcio":{}}"#.to_owned(),
            "keyless",
        ),
        (
            format!(r#"{{{sigstore},"rekorPublicKeyPath":"/r"}}"#),
            "keyless",
        ),
        (
            format!(r#"{{{sigstore},"keyType":"GPGKeys"}}"#),
            "does not belong",
        ),
        (
            format!(r#"{{{sigstore},"signedIdentity":{{"type":"any"}}}}"#),
            "not known",
        ),
        (
            format!(r#"{{{sigstore},"signedIdentity":{{"type":"matchExact","prefix":"a"}}}}"#),
            "does not belong",
        ),
        (
            format!(
                r#"{{{sigstore},"signedIdentity":{{"type":"exactReference","dockerReference":"a/b"}}}}"#
            ),
            "tag or a digest",
        ),
        (
            format!(
                r#"{{{sigstore},"signedIdentity":{{"type":"exactRepository","dockerRepository":"a/b:1"}}}}"#
            ),
            "repository alone",
        ),
        (
            format!(
                r#"{{{sigstore},"signedIdentity":{{"type":"remapIdentity","prefix":"a.example"}}}}"#
            ),
            "missing",
        ),
        (
            format!(
                r#"{{{sigstore},"signedIdentity":{{"type":"remapIdentity","prefix":"a.example/","signedPrefix":"b"}}}}"#
            ),
            "prefix",
        ),
    ] {
        let error = policy(&format!("[{requirement}]"), "").unwrap_err();
        assert!(error.to_string().contains(part), "{requirement}: {error}");
    }
}

#[test]
fn lists_scopes_and_members_that_mean_nothing_are_refused() {
    assert!(matches!(policy("[]", ""), Err(PolicyError::Empty(_))));
    assert!(matches!(
        policy(ACCEPT, r#""r.example":[]"#),
        Err(PolicyError::Empty(_))
    ));
    for scope in ["*", "a*.example", "*.*.example", "r.example/*"] {
        let refused = policy(ACCEPT, &format!("\"{scope}\":{REJECT}"));
        assert!(matches!(refused, Err(PolicyError::Wildcard(_))), "{scope}");
    }
    for text in [
        "{}".to_owned(),
        format!(r#"{{"default":{ACCEPT},"more":1}}"#),
        format!(r#"{{"default":{ACCEPT},"default":{ACCEPT}}}"#),
        format!(
            r#"{{"default":{ACCEPT},"transports":{{"docker":{{"a":{ACCEPT},"a":{REJECT}}}}}}}"#
        ),
        format!(r#"{{"default":{ACCEPT},"transports":{{"docker":{{}},"docker":{{}}}}}}"#),
        format!(r#"{{"default":{ACCEPT}}} x"#),
    ] {
        assert!(
            matches!(
                SignaturePolicy::parse(text.as_bytes()),
                Err(PolicyError::Json(_))
            ),
            "{text}"
        );
    }
}

#[test]
fn sizes_are_bounded() {
    let many = vec![r#"{"type":"reject"}"#; REQUIREMENTS_MAX + 1].join(",");
    assert!(matches!(
        policy(&format!("[{many}]"), ""),
        Err(PolicyError::TooMany(_))
    ));
    let keys = vec!["\"/k\""; KEYS_MAX + 1].join(",");
    let keys = format!(r#"[{{"type":"sigstoreSigned","keyPaths":[{keys}]}}]"#);
    assert!(
        policy(&keys, "")
            .unwrap_err()
            .to_string()
            .contains("at most 64")
    );
    let large = vec![b' '; SIZE_MAX + 1];
    assert!(matches!(
        SignaturePolicy::parse(&large),
        Err(PolicyError::Size(_))
    ));
}
