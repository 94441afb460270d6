//! Something short from a plain web server: no registry's paths, no credentials.

use ureq::http::Uri;

use super::{Answer, Client, Deadline, FetchError, Origin, Request, Source};

impl Client {
    /// Whether [`Client::get_url`] can be asked for this text.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        text.parse()
            .is_ok_and(|uri: Uri| Origin::of_uri(&uri).is_some())
    }

    /// Fetches a URL, trying again where that may help; redirects follow the same rules as a registry's.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn get_url(
        &self,
        url: &str,
        what: &'static str,
        limit: u64,
        deadline: &Deadline,
    ) -> Result<Answer, FetchError> {
        let uri: Option<Uri> = url.parse().ok();
        let parsed = uri.and_then(|uri| Origin::of_uri(&uri).map(|origin| (uri, origin)));
        let Some((uri, origin)) = parsed else {
            let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
            return Err(FetchError::Unreachable {
                origin: url.chars().take(200).collect(),
                source,
            });
        };
        let source = Source {
            origin,
            repository: String::new(),
            credentials_name: String::new(),
        };
        let request = Request {
            source: &source,
            path: "",
            what,
            accept: None,
            offset: 0,
        };
        self.retrying(deadline, || {
            let response = self.follow(&uri, request, None, deadline)?;
            let response =
                super::accept(response, request, "it must be readable without credentials")?;
            super::short(response, request, limit, deadline)
        })
    }
}
