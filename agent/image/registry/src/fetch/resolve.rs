//! Host name → addresses: literals, then `/etc/hosts`, then the name servers of
//! `resolv.conf`, each with a deadline.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use ureq::{
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use super::dns::{Answer, Family, answer, query};

const TRIES: u32 = 3;
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
const ADDRESSES_MAX: usize = 16;
const MESSAGE_MAX: usize = 4096;
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Resolves names as the files on disk say at that moment: the guest's network
/// may come up after the agent did.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) hosts: PathBuf,
    pub(crate) resolv_conf: PathBuf,
}

impl Resolver for Files {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default_port = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let limit = Instant::now() + (*timeout.after).min(Duration::from_secs(30));
        let mut found = self.empty();
        for address in self.addresses(host, limit)?.into_iter().take(ADDRESSES_MAX) {
            found.push(SocketAddr::new(address, port));
        }
        Ok(found)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ResolvConf {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Files {
    fn addresses(&self, host: &str, limit: Instant) -> io::Result<Vec<IpAddr>> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse() {
            return Ok(vec![address]);
        }
        let hosts = fs::read_to_string(&self.hosts).unwrap_or_default();
        let known = from_hosts(&hosts, host);
        if !known.is_empty() {
            return Ok(known);
        }
        if host == "localhost" {
            return Ok(vec![[127, 0, 0, 1].into()]);
        }
        let text = fs::read_to_string(&self.resolv_conf).map_err(|error| {
            let path = self.resolv_conf.display();
            io::Error::new(
                error.kind(),
                format!("cannot resolve `{host}`: cannot read {path}: {error}"),
            )
        })?;
        let conf = parse_resolv_conf(&text);
        if conf.servers.is_empty() {
            let path = self.resolv_conf.display();
            return Err(io::Error::other(format!(
                "cannot resolve `{host}`: {path} names no server"
            )));
        }
        let mut failure = io::Error::other(format!("there is no host `{host}`"));
        for name in candidates(host, &conf) {
            match lookup(&name, &conf.servers, limit) {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// `address name alias…` lines.
fn from_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|name| name.eq_ignore_ascii_case(host))
                .then_some(address)
        })
        .collect()
}

fn parse_resolv_conf(text: &str) -> ResolvConf {
    let mut conf = ResolvConf {
        servers: Vec::new(),
        search: Vec::new(),
        ndots: 1,
    };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words
                    .next()
                    .and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
                conf.servers
                    .extend(address.map(|address| SocketAddr::new(address, 53)));
            }
            Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
            Some("options") => {
                let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                conf.ndots = ndots.unwrap_or(conf.ndots);
            }
            _ => {}
        }
    }
    conf.servers.truncate(SERVERS_MAX);
    conf.search.truncate(SEARCH_MAX);
    conf
}

/// The names to ask for, in order: as `resolv.conf(5)` says for `search` and `ndots`.
fn candidates(host: &str, conf: &ResolvConf) -> Vec<String> {
    if host.ends_with('.') {
        return vec![host.to_owned()];
    }
    let searched = conf
        .search
        .iter()
        .map(|domain| format!("{host}.{}", domain.trim_matches('.')));
    let own = std::iter::once(host.to_owned());
    if host.matches('.').count() >= conf.ndots {
        own.chain(searched).collect()
    } else {
        searched.chain(own).collect()
    }
}

fn lookup(name: &str, servers: &[SocketAddr], limit: Instant) -> io::Result<Vec<IpAddr>> {
    let mut addresses = ask(name, Family::V4, servers, limit)?;
    // Registries have both or IPv4 alone; a server that chokes on AAAA must not hide the A.
    match ask(name, Family::V6, servers, limit) {
        Ok(more) => addresses.extend(more),
        Err(error) if addresses.is_empty() => return Err(error),
        Err(_) => {}
    }
    Ok(addresses)
}

fn ask(
    name: &str,
    family: Family,
    servers: &[SocketAddr],
    limit: Instant,
) -> io::Result<Vec<IpAddr>> {
    let mut id = [0; 2];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| io::Error::other("no random numbers"))?;
    let Some(query) = query(u16::from_be_bytes(id), name, family) else {
        return Err(io::Error::other(format!("`{name}` is not a host name")));
    };
    for attempt in 0..TRIES {
        for server in servers {
            let wait = (FIRST_WAIT * 2u32.pow(attempt))
                .min(limit.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                break;
            }
            match exchange(&query, *server, wait) {
                Ok(Answer::Addresses(addresses)) => return Ok(addresses),
                Ok(Answer::NoSuchName) => return Ok(Vec::new()),
                Ok(Answer::Truncated | Answer::Failed) | Err(_) => {}
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no name server answers for `{name}`"),
    ))
}

fn exchange(query: &[u8], server: SocketAddr, wait: Duration) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(query)?;
    let limit = Instant::now() + wait;
    let mut message = [0; MESSAGE_MAX];
    loop {
        socket.set_read_timeout(Some(left(limit)?))?;
        let length = socket.recv(&mut message)?;
        match answer(query, message.get(..length).unwrap_or_default()) {
            Some(Answer::Truncated) => return exchange_tcp(query, server, limit),
            Some(answer) => return Ok(answer),
            None => {}
        }
    }
}

fn exchange_tcp(query: &[u8], server: SocketAddr, limit: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, left(limit)?)?;
    stream.set_write_timeout(Some(left(limit)?))?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    read_exact(&mut stream, &mut length, limit)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    read_exact(&mut stream, &mut message, limit)?;
    answer(query, &message).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn left(limit: Instant) -> io::Result<Duration> {
    let left = limit.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// However slowly the bytes come, one by one even.
fn read_exact(stream: &mut TcpStream, mut buffer: &mut [u8], limit: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(limit)?))?;
        match stream.read(buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => buffer = buffer.get_mut(length..).unwrap_or_default(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_c_library_reads_it() {
        let conf = parse_resolv_conf(
            "# x\nnameserver 10.0.0.1\nnameserver fd00::1%eth0\nnameserver bad\nsearch a b\noptions rotate ndots:5\n",
        );
        assert_eq!(
            conf.servers,
            [
                "10.0.0.1:53".parse().unwrap(),
                "[fd00::1]:53".parse().unwrap()
            ]
        );
        assert_eq!(candidates("r.x", &conf), ["r.x.a", "r.x.b", "r.x"]);
        assert_eq!(candidates("r.x.", &conf), ["r.x."]);
        assert_eq!(
            candidates("r.x", &parse_resolv_conf("search a")),
            ["r.x", "r.x.a"]
        );
    }

    #[test]
    fn literals_and_the_hosts_file_need_no_server() {
        let directory = tempfile::tempdir().unwrap();
        let hosts = directory.path().join("hosts");
        fs::write(
            &hosts,
            "10.0.0.9 registry.test alias # comment other\n::1 registry.test\n",
        )
        .unwrap();
        let files = Files {
            hosts,
            resolv_conf: directory.path().join("absent"),
        };
        let limit = Instant::now() + Duration::from_secs(1);
        let found = |host: &str| {
            files
                .addresses(host, limit)
                .map(|addresses| addresses.len())
                .ok()
        };
        assert_eq!(
            [found("10.1.2.3"), found("[::1]"), found("localhost")],
            [Some(1); 3]
        );
        assert_eq!(
            [found("registry.test"), found("ALIAS"), found("other")],
            [Some(2), Some(1), None]
        );
    }

    #[test]
    fn a_name_server_is_asked_and_forged_answers_are_ignored() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut message = [0; 512];
            let (length, peer) = server.recv_from(&mut message).unwrap();
            let mut answer = message[..length].to_vec();
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07");
            let mut forged = answer.clone();
            forged[0] ^= 1;
            server.send_to(&forged, peer).unwrap();
            server.send_to(&answer, peer).unwrap();
        });
        let limit = Instant::now() + Duration::from_secs(5);
        assert_eq!(
            ask("r.test", Family::V4, &[address], limit).unwrap(),
            [IpAddr::from([10, 0, 0, 7])]
        );
        thread.join().unwrap();
    }
}
