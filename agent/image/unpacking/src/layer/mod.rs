//! One layer from its blob to a verified directory.
//!
//! Four stages run at once, joined by bounded streams ([`mod@flow`]):
//!
//! 1. read the blob, hash it as it is stored, and decrypt it ([`cipher`]);
//! 2. decompress ([`mod@inflate`]);
//! 3. hash the unpacked archive;
//! 4. make its files ([`crate::tree`]).
//!
//! They are plain threads: every stage is bound by the CPU or by memory, and on
//! one core they simply take turns. The directory is of use only if all of them
//! ended well and both digests match; until then it is in the store's staging
//! area and nobody sees it.
//!
//! The pull's time ends all of them: each asks for it with every piece of the stream, and
//! which one of them was busy then says whether the network or the unpacking took it.
//!
//! If a later stage finds the bytes broken, the first one still reads the blob to
//! its end: a wrong blob digest is the better explanation, and the one a user can
//! act upon.

mod cipher;
mod flow;
mod inflate;
mod media;
mod twin;

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use agent_image_registry::{Blob, Deadline, Digest, DigestError, FetchError, Over};
use agent_keys::{KeyProvider, LayerKey, LayerKeyError, ResourceUri};
use cipher::Stored;
use flow::{Gone, Receiver, Sender, flow, is_interrupted};
use media::Compression;
pub use media::{Form, parse as parse_media_type};

use crate::{
    report::Meter,
    tar::{Reader, TarError},
    tree::{self, Notes, TreeError},
};

/// What a layer must turn out to be.
pub struct Expected<'a> {
    /// How it is stored.
    pub form: Form,
    /// The blob's digest.
    pub digest: &'a Digest,
    /// The unpacked archive's digest.
    pub diff_id: &'a Digest,
    /// The descriptor's, where wrapped keys are.
    pub annotations: &'a BTreeMap<String, String>,
    /// Where keys come from.
    pub keys: Option<&'a dyn KeyProvider>,
    /// Which of them are private keys.
    pub private_keys: &'a [ResourceUri],
    /// Unpacked bytes, what follows the archive's end included.
    pub unpacked_max: u64,
    /// When all of it must be over.
    pub deadline: &'a Deadline,
    /// Counts the bytes.
    pub meter: &'a Meter<'a>,
}

/// Why a layer is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Not a layer we know.
    #[error("its media type `{0}` is not a layer's")]
    MediaType(String),
    /// Encrypted, and no key provider is there.
    #[error("it is encrypted, and this pull has no keys")]
    NoKeys,
    /// Encrypted, and its key is not to be had.
    #[error("it is encrypted, and its key cannot be had")]
    Key(#[source] LayerKeyError),
    /// The MAC over the ciphertext.
    #[error(
        "its HMAC does not match: the encrypted layer was changed, or its key belongs to another layer"
    )]
    Mac,
    /// What was wrapped with the key as digest.
    #[error("the digest wrapped with its key cannot be read")]
    InnerDigestText(#[source] DigestError),
    /// The decrypted bytes are others than those that were encrypted.
    #[error("it does not decrypt to what was encrypted: {expected} was, {found} came out")]
    InnerDigest {
        /// What the producer wrapped with the key.
        expected: Digest,
        /// That of the decrypted bytes.
        found: Digest,
    },
    /// The download.
    #[error("it cannot be downloaded")]
    Fetch(#[source] FetchError),
    /// The stored bytes are others than the manifest names.
    #[error(
        "its blob digest does not match: the manifest says {expected}, the registry sent {found}; push the image again or ask who changed it"
    )]
    BlobDigest {
        /// The manifest's.
        expected: Digest,
        /// That of the bytes received.
        found: Digest,
    },
    /// The stored bytes do not decompress.
    #[error("it cannot be decompressed; the image is broken as pushed")]
    Inflate(#[source] io::Error),
    /// More than the limit.
    #[error("it unpacks to more than {0} bytes, which is this guest's limit for a layer")]
    TooLarge(u64),
    /// The unpacked bytes are others than the configuration names.
    #[error(
        "its diff id does not match: the image's configuration says {expected}, the layer unpacks to {found}; the image is broken as pushed"
    )]
    DiffId {
        /// The configuration's.
        expected: Digest,
        /// That of the unpacked archive.
        found: Digest,
    },
    /// The archive or its files.
    #[error("it cannot be unpacked")]
    Tree(#[source] TreeError),
    /// No thread could be started.
    #[error("cannot start a thread for it")]
    Thread(#[source] io::Error),
    /// Its bytes were there, but not unpacked in time.
    #[error("its unpacking was not finished")]
    Stopped(#[source] Over),
}

/// How a stage ended that did not end well.
enum Failure {
    /// By itself.
    Own(LayerError),
    /// Because a neighbour did.
    Neighbour,
}

impl From<Over> for Failure {
    fn from(over: Over) -> Self {
        Self::Own(LayerError::Stopped(over))
    }
}

impl From<Gone> for Failure {
    fn from(_: Gone) -> Self {
        Self::Neighbour
    }
}

/// Downloads, verifies and unpacks a layer below `root`.
pub fn unpack(blob: Blob<'_>, expected: &Expected<'_>, root: OwnedFd) -> Result<Notes, LayerError> {
    let keys = match (expected.form.encrypted, expected.keys) {
        (false, _) => None,
        (true, Some(keys)) => Some(keys),
        (true, None) => return Err(LayerError::NoKeys),
    };
    let hopeless = AtomicBool::new(false);
    let (stored_in, stored_out) = flow();
    let (unpacked_in, unpacked_out) = flow();
    let (hashed_in, hashed_out) = flow();
    let (fetched, inflated, hashed, made) = thread::scope(|scope| {
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        // The key is fetched while the first bytes are on their way.
        let key = match keys {
            Some(keys) => Some(
                spawn("layer-key")
                    .spawn_scoped(scope, || {
                        LayerKey::unwrap(expected.annotations, keys, expected.private_keys)
                    })
                    .map_err(LayerError::Thread)?,
            ),
            None => None,
        };
        let fetch = Fetch {
            blob,
            expected,
            key,
            hopeless: &hopeless,
        };
        let fetching = spawn("layer-fetch")
            .spawn_scoped(scope, || fetch.run(stored_in))
            .map_err(LayerError::Thread)?;
        let inflating = spawn("layer-inflate")
            .spawn_scoped(scope, || {
                inflate(expected, stored_out, unpacked_in, &hopeless)
            })
            .map_err(LayerError::Thread)?;
        let hashing = spawn("layer-hash")
            .spawn_scoped(scope, || hash(expected, unpacked_out, hashed_in))
            .map_err(LayerError::Thread)?;
        let made = make(hashed_out, root);
        // Other failures may be explained by the blob's digest; this one is not the blob's.
        if matches!(
            &made,
            Err(Failure::Own(LayerError::Tree(TreeError::Full { .. })))
        ) {
            hopeless.store(true, Ordering::Relaxed);
        }
        Ok((join(fetching), join(inflating), join(hashing), made))
    })?;
    // Earlier stages explain what later ones saw.
    for result in [fetched, inflated] {
        if let Err(Failure::Own(error)) = result {
            return Err(error);
        }
    }
    let (notes, found) = made
        .and_then(|notes| Ok((notes, hashed?)))
        .map_err(|failure| match failure {
            Failure::Own(error) => error,
            Failure::Neighbour => {
                LayerError::Inflate(io::Error::other("a stage ended without saying why"))
            }
        })?;
    if found != *expected.diff_id {
        return Err(LayerError::DiffId {
            expected: expected.diff_id.clone(),
            found,
        });
    }
    Ok(notes)
}

/// A stage that panics takes the pull with it, as it would have on this thread.
fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

type KeyHandle<'scope> = thread::ScopedJoinHandle<'scope, Result<LayerKey, LayerKeyError>>;

/// The first stage.
struct Fetch<'a, 'scope> {
    blob: Blob<'a>,
    expected: &'a Expected<'a>,
    key: Option<KeyHandle<'scope>>,
    hopeless: &'a AtomicBool,
}

impl Fetch<'_, '_> {
    fn run(mut self, sender: Sender) -> Result<(), Failure> {
        let mut sender = Some(sender);
        let mut stored = None;
        let mut spare = Vec::new();
        loop {
            if self.hopeless.load(Ordering::Relaxed) {
                return Err(Failure::Neighbour);
            }
            let mut chunk = match sender.as_mut().map(Sender::buffer) {
                Some(Ok(buffer)) => buffer,
                // Nobody unpacks any more; what is left is read for its digest only.
                _ => {
                    sender = None;
                    let mut buffer = std::mem::take(&mut spare);
                    buffer.resize(flow::CHUNK_BYTES, 0);
                    buffer
                }
            };
            // What took the time until here was the unpacking, and none of the network.
            self.expected.deadline.check()?;
            let length = self.fill(&mut chunk)?;
            chunk.truncate(length);
            let stored = match &mut stored {
                Some(stored) => stored,
                none => none.insert(self.stored().map_err(Failure::Own)?),
            };
            stored.update(&mut chunk);
            if length == 0 {
                break;
            }
            match sender.take() {
                Some(open) => sender = open.send(chunk).is_ok().then_some(open),
                None => spare = chunk,
            }
        }
        if let Some(stored) = stored {
            stored.finish(self.expected.digest).map_err(Failure::Own)?;
        }
        // The end is told only now: a blob that does not match never looks complete.
        match sender {
            Some(sender) => sender.end().map_err(Failure::from),
            None => Err(Failure::Neighbour),
        }
    }

    /// Fills the buffer unless the blob ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut length = 0;
        while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
            let amount = self.blob.read(rest);
            let amount = amount.map_err(|error| Failure::Own(LayerError::Fetch(error)))?;
            if amount == 0 {
                break;
            }
            self.expected.meter.receive(amount);
            length += amount;
        }
        Ok(length)
    }

    fn stored(&mut self) -> Result<Stored, LayerError> {
        match self.key.take() {
            None => Ok(Stored::plain(self.expected.digest)),
            Some(handle) => {
                let key = join(handle).map_err(LayerError::Key)?;
                let is_compressed = self.expected.form.compression != Compression::None;
                let unpacked = is_compressed.then_some(self.expected.diff_id);
                Stored::encrypted(self.expected.digest, unpacked, &key)
            }
        }
    }
}

fn inflate(
    expected: &Expected<'_>,
    stored: Receiver,
    mut sender: Sender,
    hopeless: &AtomicBool,
) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        if is_interrupted(&error) || error.get_ref().is_some_and(wraps_interruption) {
            Failure::Neighbour
        } else {
            Failure::Own(LayerError::Inflate(error))
        }
    };
    let mut decoder = inflate::decoder(expected.form.compression, stored).map_err(failed)?;
    let mut left = expected.unpacked_max;
    loop {
        let mut chunk = sender.buffer()?;
        expected.deadline.check()?;
        let mut length = 0;
        while let Some(rest) = chunk.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match decoder.read(rest).map_err(failed)? {
                0 => break,
                amount => length += amount,
            }
        }
        chunk.truncate(length);
        let Some(rest) = left.checked_sub(length as u64) else {
            hopeless.store(true, Ordering::Relaxed);
            return Err(Failure::Own(LayerError::TooLarge(expected.unpacked_max)));
        };
        left = rest;
        expected.meter.unpack(length);
        if length == 0 {
            return sender.end().map_err(Failure::from);
        }
        sender.send(chunk)?;
    }
}

fn wraps_interruption(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(is_interrupted)
}

/// Hashes what passes: all of it, what follows the archive's end included.
fn hash(
    expected: &Expected<'_>,
    mut unpacked: Receiver,
    mut sender: Sender,
) -> Result<Digest, Failure> {
    let mut hasher = expected.diff_id.hasher();
    while let Some(chunk) = unpacked.next_chunk().map_err(|_| Failure::Neighbour)? {
        hasher.update(&chunk);
        // The sender before us wants a buffer for the one that we pass on.
        unpacked.give_back(sender.buffer()?);
        sender.send(chunk)?;
    }
    sender.end()?;
    Ok(hasher.finish())
}

fn make(unpacked: Receiver, root: OwnedFd) -> Result<Notes, Failure> {
    let mut reader = Reader::new(unpacked);
    let notes = tree::unpack(root, &mut reader).map_err(|error| match &error {
        TreeError::Tar {
            source: TarError::Read(source),
            ..
        } if is_interrupted(source) => Failure::Neighbour,
        _ => Failure::Own(LayerError::Tree(error)),
    })?;
    // What follows the archive's end is only hashed.
    let mut rest = reader.into_inner();
    while let Some(chunk) = rest.next_chunk().map_err(|_| Failure::Neighbour)? {
        rest.give_back(chunk);
    }
    Ok(notes)
}
