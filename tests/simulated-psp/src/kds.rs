//! A key server like AMD's, for the simulated processors' certificates.
//!
//! Answers the requests of AMD 57230: `/vcek/v1/{product}/{chip}?…SPL=…`,
//! `/{vcek,vlek}/v1/{product}/cert_chain` and `/crl`; 404 for a chip or TCB that is not ours.
//! It can be told to limit its callers, to revoke the intermediates, and to fail.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use policy_appraisal::snp::{Product, SigningKey};

use crate::{authority::Authority, processor::Model};

/// Serial number of ASK and ASVK.
pub const INTERMEDIATE: u8 = 0x22;
const SILENCE: Duration = Duration::from_secs(10);
const MAX_REQUEST_LEN: u64 = 8 * 1024;

/// What the server does beside answering.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// This many requests are answered with 429.
    pub limited: usize,
    /// What 429 asks the caller to wait, in seconds.
    pub retry_after: u64,
    /// Serial numbers on the revocation list.
    pub revoked: Vec<u8>,
    /// Every request is answered with 503.
    pub down: bool,
}

/// A running server; it serves as long as the process lives.
#[derive(Clone, Debug)]
pub struct Kds {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    requests: Vec<String>,
}

struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

impl Kds {
    /// Starts serving an authority's certificates.
    pub fn start(authority: Authority, listen: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(listen).context("listening")?;
        let server = Self {
            address: listener.local_addr()?,
            state: Arc::default(),
        };
        let serving = server.clone();
        thread::spawn(move || {
            // One caller after the other: there is one in every test.
            for stream in listener.incoming().flatten() {
                if let Err(error) = serving.answer(&authority, stream) {
                    eprintln!("simulated-psp: {error:#}");
                }
            }
        });
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what it does from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
    }

    /// The paths that were asked for since the last call.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().requests)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, authority: &Authority, stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?.take(MAX_REQUEST_LEN)).lines();
        let request = lines.next().context("no request")??;
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).context("no path")?;
        let behaviour = {
            let mut state = self.lock();
            state.requests.push(path.to_owned());
            let behaviour = state.behaviour.clone();
            state.behaviour.limited = behaviour.limited.saturating_sub(1);
            behaviour
        };
        let answer = behaviour.answer(authority, path)?;
        let head = format!(
            "HTTP/1.1 {}\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
            answer.status,
            answer.headers,
            answer.body.len()
        );
        let mut stream = stream;
        stream.write_all(head.as_bytes())?;
        Ok(stream.write_all(&answer.body)?)
    }
}

impl Behaviour {
    fn answer(&self, authority: &Authority, path: &str) -> Result<Answer> {
        let empty = |status, headers: String| Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if self.down {
            return Ok(empty("503 Service Unavailable", String::new()));
        }
        if self.limited > 0 {
            let headers = format!("Retry-After: {}\r\n", self.retry_after);
            return Ok(empty("429 Too Many Requests", headers));
        }
        match self.content(authority, path)? {
            Some(body) => Ok(Answer {
                status: "200 OK",
                headers: String::new(),
                body,
            }),
            None => Ok(empty("404 Not Found", String::new())),
        }
    }

    fn content(&self, authority: &Authority, path: &str) -> Result<Option<Vec<u8>>> {
        let parts: Vec<&str> = path.split('/').collect();
        let ["", kind, "v1", product, name] = parts.as_slice() else {
            return Ok(None);
        };
        let kind = match *kind {
            "vcek" => SigningKey::Vcek,
            "vlek" => SigningKey::Vlek,
            _ => return Ok(None),
        };
        let Ok(product) = product.parse::<Product>() else {
            return Ok(None);
        };
        match *name {
            "cert_chain" => Ok(Some(authority.chain(product, kind).into_bytes())),
            "crl" => Ok(Some(authority.revocation_list(product, &self.revoked)?)),
            leaf if kind == SigningKey::Vcek => {
                let model = Model {
                    product,
                    signing_key: kind,
                    report_version: 5,
                };
                let known = leaf == leaf_name(authority, model);
                Ok(known.then(|| authority.leaf(product, kind, model.tcb())))
            }
            _ => Ok(None),
        }
    }
}

/// The one chip at the one TCB that is played.
fn leaf_name(authority: &Authority, model: Model) -> String {
    let tcb = model.tcb();
    let chip = hex::encode(authority.chip().hardware_id(model.product));
    let fmc = tcb.fmc.map(|fmc| format!("&fmcSPL={fmc}"));
    format!(
        "{chip}?blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}{}",
        tcb.bootloader,
        tcb.tee,
        tcb.snp,
        tcb.microcode,
        fmc.unwrap_or_default()
    )
}
