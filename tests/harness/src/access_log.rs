//! What was asked of the registry, and by whom: the proof that the host pulled no layer.

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The address that asked.
    pub client: String,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The status it was answered with.
    pub status: u16,
}

impl Request {
    /// Did a pod ask, and not the node?
    #[must_use]
    pub fn is_from_pod(&self) -> bool {
        self.client.starts_with("10.88.")
    }

    /// Was it a download of the blob `digest`?
    #[must_use]
    pub fn fetches(&self, digest: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/blobs/{digest}"))
    }
}

/// The registry's log in common log format.
#[derive(Debug, Clone, Default)]
pub struct AccessLog(pub Vec<Request>);

impl AccessLog {
    pub(crate) fn parse(log: &str) -> Self {
        Self(log.lines().filter_map(parse_line).collect())
    }

    /// Downloads of the blob `digest`: by the node, by pods.
    #[must_use]
    pub fn fetches(&self, digest: &str) -> (usize, usize) {
        let all = self.0.iter().filter(|one| one.fetches(digest));
        let (pods, node): (Vec<_>, Vec<_>) = all.partition(|one| one.is_from_pod());
        (node.len(), pods.len())
    }
}

/// `10.88.0.5 - - [date] "GET /v2/… HTTP/1.1" 200 5 "" "agent"`
fn parse_line(line: &str) -> Option<Request> {
    let (client, rest) = line.split_once(" - ")?;
    let mut quoted = rest.split('"').skip(1);
    let mut request = quoted.next()?.split(' ');
    let status = quoted.next()?.trim().split(' ').next()?;
    Some(Request {
        client: client.to_owned(),
        method: request.next()?.to_owned(),
        path: request.next()?.split('?').next()?.to_owned(),
        status: status.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_understood_and_other_lines_are_not() {
        let log = "time=\"x\" level=warning msg=hello\n\
            10.88.0.5 - - [21/Nov/2026:13:00:00 +0000] \"GET /v2/a/blobs/sha256:ab?x=1 HTTP/1.1\" 200 5 \"\" \"u\"\n";
        let log = AccessLog::parse(log);
        assert_eq!(log.0.len(), 1);
        assert_eq!(log.0[0].status, 200);
        assert_eq!(log.fetches("sha256:ab"), (0, 1));
        assert_eq!(log.fetches("sha256:cd"), (0, 0));
    }
}
