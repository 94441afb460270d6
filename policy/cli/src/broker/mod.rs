//! `kata-cc broker`: the owner's key broker, its resources, and what it decided.
//!
//! Runs on a machine of the owner's. The directory may be read by others, for all but the audit
//! log is encrypted or no secret; the store key may not.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage |
//! | 3 | `explain`: the audit log was changed |

mod explain;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use agent_keys_protocol::ResourceName;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use policy_broker::{
    broker::Broker,
    identity,
    rules::Rules,
    server,
    store::{RESOURCE_BYTES_MAX, Store},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use zeroize::Zeroizing;

/// For `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  explain: the audit log was changed";

/// Release keys to guests that prove what they run.
#[derive(Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum Command {
    Init(InitOptions),
    Serve(ServeOptions),
    Put(PutOptions),
    List(Place),
    Remove(RemoveOptions),
    Check(CheckOptions),
    Explain(explain::Options),
}

/// Where a broker is.
#[derive(Args)]
pub(crate) struct Place {
    /// The broker's directory
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// The key that the store is encrypted under, outside of the directory
    #[arg(long, value_name = "FILE")]
    store_key: PathBuf,
}

/// Make a broker: TLS identity, keys and store; prints the entry `aa.toml` for initdata.
#[derive(Args)]
pub(crate) struct InitOptions {
    #[command(flatten)]
    place: Place,
    /// Name or address by which guests reach it
    #[arg(long, value_name = "HOST")]
    name: String,
    /// Port by which guests reach it
    #[arg(long, default_value_t = 8443)]
    port: u16,
}

/// Serve guests until SIGINT or SIGTERM.
#[derive(Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    place: Place,
    /// Address instead of that in broker.toml
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

/// Store a resource, in place of an older one of the name.
#[derive(Args)]
pub(crate) struct PutOptions {
    #[command(flatten)]
    place: Place,
    /// Its name: repository/type/tag
    name: ResourceArgument,
    /// Its content [default: standard input]
    file: Option<PathBuf>,
}

/// Remove a resource.
#[derive(Args)]
pub(crate) struct RemoveOptions {
    #[command(flatten)]
    place: Place,
    /// Its name: repository/type/tag
    name: ResourceArgument,
}

/// Check broker.toml and every file that it names.
#[derive(Args)]
pub(crate) struct CheckOptions {
    /// The broker's directory
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
}

/// A name, parsed.
#[derive(Clone)]
struct ResourceArgument(ResourceName);

impl std::str::FromStr for ResourceArgument {
    type Err = agent_keys_protocol::ResourceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ResourceName::parse(text).map(Self)
    }
}

/// Runs one of the commands; answers with the exit code.
pub(crate) async fn run(command: &Command) -> Result<u8> {
    match command {
        Command::Init(options) => init(options)?,
        Command::Serve(options) => serve(options).await?,
        Command::Put(options) => {
            let content = content(options.file.as_deref())?;
            open(&options.place)?.put(&options.name.0, &content)?;
        }
        Command::List(place) => {
            for name in open(place)?.names()? {
                println!("{name}");
            }
        }
        Command::Remove(options) => {
            if !open(&options.place)?.remove(&options.name.0)? {
                bail!("there is no resource {}", options.name.0);
            }
        }
        Command::Check(options) => {
            Rules::read(&options.directory)?;
        }
        Command::Explain(options) => return explain::run(options),
    }
    Ok(0)
}

fn open(place: &Place) -> Result<Store> {
    Ok(identity::open_store(&place.directory, &place.store_key)?)
}

fn init(options: &InitOptions) -> Result<()> {
    let InitOptions { place, name, port } = options;
    let certificate = identity::create(&place.directory, &place.store_key, name)?;
    // An IPv6 address is in brackets where a port follows.
    let host = match name.parse() {
        Ok(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        _ => name.clone(),
    };
    let text = identity::guest_configuration(&format!("https://{host}:{port}"), Some(&certificate));
    let path = place.directory.join("aa.toml");
    fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    print!("{text}");
    Ok(())
}

async fn serve(options: &ServeOptions) -> Result<()> {
    let place = &options.place;
    let (broker, tls, configured) = Broker::open(&place.directory, &place.store_key)?;
    let address = options.listen.unwrap_or(configured);
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    eprintln!("kata-cc: the broker listens on {}", listener.local_addr()?);
    tokio::select! {
        () = server::serve(broker, tls, listener) => {}
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

/// A file or standard input, whole.
fn content(path: Option<&Path>) -> Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    let most = u64::try_from(RESOURCE_BYTES_MAX + 1)?;
    let read = match path {
        Some(path) => File::open(path).and_then(|file| file.take(most).read_to_end(&mut content)),
        None => io::stdin().take(most).read_to_end(&mut content),
    };
    let shown = || {
        path.map_or("standard input".to_owned(), |path| {
            path.display().to_string()
        })
    };
    read.with_context(|| format!("cannot read {}", shown()))?;
    Ok(content)
}
