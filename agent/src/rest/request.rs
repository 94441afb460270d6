//! From bytes to a question, and from an answer to bytes. Pure.

use agent_evidence::evidence::MAX_NONCE_LEN;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::told::Told;

/// The longest request: a nonce of full length, each byte percent-encoded, and headers.
pub(super) const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// What a client may ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// What this is.
    Info,
    /// Evidence that answers a nonce.
    Evidence {
        /// The runtime data.
        nonce: Vec<u8>,
    },
}

/// Whether a request is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed.
    Partial,
    /// It is, and asks this or is answered so.
    Done(Result<Ask, Answer>),
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    pub(super) const TOO_LARGE: Self = Self::text("431 Request Header Fields Too Large");
    const BAD: Self = Self::text("400 Bad Request");
    const MISDIRECTED: Self = Self::text("421 Misdirected Request");
    const METHOD: Self = Self::text("405 Method Not Allowed");

    const fn text(status: &'static str) -> Self {
        Self {
            status,
            content_type: "text/plain",
            body: String::new(),
        }
    }

    fn not_found(why: &str) -> Self {
        Self {
            body: why.to_owned(),
            ..Self::text("404 Not Found")
        }
    }

    /// JSON that was asked for.
    pub(super) fn json(body: String) -> Self {
        Self {
            status: "200 OK",
            content_type: "application/json",
            body,
        }
    }

    /// A failure that is not the client's.
    pub(super) fn failed(why: &Told) -> Self {
        Self {
            body: why.to_string(),
            ..Self::text("500 Internal Server Error")
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self {
            status,
            content_type,
            body,
        } = self;
        // An answer without text of its own says its status.
        let body = if body.is_empty() {
            status
        } else {
            body.as_str()
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Reads a request's head (RFC 9112); a body is never read.
pub(super) fn parse(head: &[u8]) -> Progress {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => Progress::Partial,
        Ok(httparse::Status::Complete(_)) => {
            let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
            Progress::Done(if is_for_us(request.headers) {
                route(method, target)
            } else {
                Err(Answer::MISDIRECTED)
            })
        }
        Err(httparse::Error::TooManyHeaders) => Progress::Done(Err(Answer::TOO_LARGE)),
        Err(_) => Progress::Done(Err(Answer::BAD)),
    }
}

/// Whether a request names this server: a page from elsewhere that a browser in the pod was led
/// to by a name of its own would name itself. Without the header it is no browser's.
fn is_for_us(headers: &[httparse::Header<'_>]) -> bool {
    let named = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("host"));
    let mut hosts = named.map(|header| host_of(header.value));
    hosts.all(|host| matches!(host, b"127.0.0.1" | b"localhost" | b"[::1]"))
}

/// Without the port.
fn host_of(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority.get(colon..).is_some_and(is_port) => {
            authority.get(..colon).unwrap_or_default()
        }
        _ => authority,
    }
}

fn is_port(text: &[u8]) -> bool {
    text.iter().skip(1).all(u8::is_ascii_digit)
}

fn route(method: &str, target: &str) -> Result<Ask, Answer> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match (path, method) {
        ("/info", "GET") => Ok(Ask::Info),
        ("/info", _) => Err(Answer::METHOD),
        ("/aa/evidence", "GET") => evidence(query).ok_or(Answer::BAD),
        _ if path.starts_with("/cdh/") => Err(Answer::not_found("Resource Feature Not Enabled")),
        _ => Err(Answer::not_found("URL NOT FOUND")),
    }
}

fn evidence(query: &str) -> Option<Ask> {
    let (mut runtime_data, mut encoding) = (None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match name {
            "runtime_data" => &mut runtime_data,
            "encoding" => &mut encoding,
            _ => continue,
        };
        if place.replace(decoded(value)?).is_some() {
            return None;
        }
    }
    let runtime_data = runtime_data?;
    let nonce = match encoding.as_deref() {
        None => runtime_data,
        Some(b"base64") => URL_SAFE_NO_PAD.decode(runtime_data).ok()?,
        Some(_) => return None,
    };
    (nonce.len() <= MAX_NONCE_LEN).then_some(Ask::Evidence { nonce })
}

/// The bytes of a form's value (URL standard, `application/x-www-form-urlencoded`), but a
/// percent sign must be followed by two digits.
fn decoded(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let value = char::from(rest.next()?).to_digit(16)?;
                    u8::try_from(value).ok()
                };
                let (high, low) = (digit()?, digit()?);
                high << 4 | low
            }
            other => other,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str) -> Result<Ask, Answer> {
        match parse(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()) {
            Progress::Done(result) => result,
            Progress::Partial => panic!("partial"),
        }
    }

    fn nonce(nonce: &[u8]) -> Result<Ask, Answer> {
        Ok(Ask::Evidence {
            nonce: nonce.into(),
        })
    }

    #[test]
    fn runtime_data_is_text_or_base64() {
        assert_eq!(asked("/aa/evidence?runtime_data=abc"), nonce(b"abc"));
        assert_eq!(
            asked("/aa/evidence?x=1&runtime_data=a%00%fFb+c"),
            nonce(b"a\0\xffb c")
        );
        assert_eq!(
            asked("/aa/evidence?encoding=base64&runtime_data=_-8"),
            nonce(b"\xff\xef")
        );
        assert_eq!(asked("/aa/evidence?runtime_data="), nonce(b""));
    }

    #[test]
    fn what_cannot_be_a_nonce_is_a_bad_request() {
        let long = "x".repeat(MAX_NONCE_LEN + 1);
        for query in [
            "",
            "?",
            "?runtime_dat=a",
            "?runtime_data=%",
            "?runtime_data=%1",
            "?runtime_data=%+1",
            "?runtime_data=a&runtime_data=b",
            "?runtime_data=a&encoding=base32",
            "?runtime_data=a&encoding=",
            "?runtime_data=AA==&encoding=base64",
            "?runtime_data=%2F%2B8&encoding=base64",
            &format!("?runtime_data={long}"),
        ] {
            assert_eq!(
                asked(&format!("/aa/evidence{query}")),
                Err(Answer::BAD),
                "{query}"
            );
        }
        let full = "x".repeat(MAX_NONCE_LEN);
        assert_eq!(
            asked(&format!("/aa/evidence?runtime_data={full}")),
            nonce(full.as_bytes())
        );
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [
            "/",
            "/aa/token?token_type=kbs",
            "/aa/evidence/",
            "/aa/additional-evidence?runtime_data=a",
            "/cdh/resource/default/key/1",
        ] {
            assert_eq!(asked(path).unwrap_err().status, "404 Not Found", "{path}");
        }
        for (method, path, status) in [
            ("POST", "/aa/evidence?runtime_data=a", "404 Not Found"),
            ("POST", "/info", "405 Method Not Allowed"),
        ] {
            assert_eq!(route(method, path).unwrap_err().status, status, "{method}");
        }
    }

    #[test]
    fn requests_are_partial_until_they_end_and_garbage_is_bad() {
        let whole = b"GET /info HTTP/1.1\r\nA: b\r\n\r\n";
        for length in 0..whole.len() {
            let cut = whole.get(..length).unwrap();
            assert_eq!(parse(cut), Progress::Partial, "{length}");
        }
        assert_eq!(parse(whole), Progress::Done(Ok(Ask::Info)));
        assert_eq!(parse(b"\x16\x03\x01"), Progress::Done(Err(Answer::BAD)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        assert_eq!(
            parse(many.as_bytes()),
            Progress::Done(Err(Answer::TOO_LARGE))
        );
    }

    #[test]
    fn a_request_for_another_server_is_not_answered() {
        let asked = |host: &str| parse(format!("GET /info HTTP/1.1\r\n{host}\r\n").as_bytes());
        for host in [
            "",
            "Host: 127.0.0.1:8006\r\n",
            "host: localhost\r\n",
            "HOST: [::1]:8006\r\n",
        ] {
            assert_eq!(asked(host), Progress::Done(Ok(Ask::Info)), "{host}");
        }
        for host in [
            "Host: evil.example\r\n",
            "Host: evil.example:8006\r\n",
            "Host: 127.0.0.1.evil.example\r\n",
            "Host: localhost\r\nHost: evil.example\r\n",
            "Host: localhost:80:evil\r\n",
            "Host: \r\n",
        ] {
            assert_eq!(
                asked(host),
                Progress::Done(Err(Answer::MISDIRECTED)),
                "{host}"
            );
        }
    }

    #[test]
    fn an_answer_has_its_length_and_ends_the_connection() {
        let bytes = Answer::json("{}".to_owned()).to_bytes();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
             Connection: close\r\n\r\n{}"
        );
        let bytes = Answer::BAD.to_bytes();
        assert!(bytes.ends_with(b"\r\n\r\n400 Bad Request"));
    }
}
