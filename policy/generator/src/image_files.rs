//! `/etc/passwd` and `/etc/group` of an image, out of its layers from the top down.
//!
//! A layer is streamed, never stored, and read to its end: its digest covers all of it. What it
//! holds is hostile until then, and afterwards only what somebody pushed: sizes are bounded.

use std::{
    io::{self, BufReader, Read, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use agent_image_registry::{Descriptor, Digest};
use policy_images::{PlaceError, Source};

use crate::users::Users;

/// Larger than any user database that a person wrote; the guest's own limit.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// What a layer may unpack to.
const LAYER_BYTES_MAX: u64 = 256 << 30;
const CHUNKS_AHEAD: usize = 8;

/// Why an image's files cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Only the guest has the key.
    #[error("layer {0} is encrypted")]
    Encrypted(Digest),
    /// No kind of layer that is known.
    #[error("layer {digest} has the unknown type {media_type}")]
    MediaType {
        /// The layer.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// The download.
    #[error("layer {digest} cannot be fetched")]
    Fetch {
        /// The layer.
        digest: Digest,
        /// Why.
        #[source]
        source: PlaceError,
    },
    /// Other bytes than its name says.
    #[error("layer {0} has other bytes than its digest says")]
    Digest(Digest),
    /// Not an archive.
    #[error("layer {digest} cannot be read")]
    Archive {
        /// The layer.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a layer says of one file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Said {
    /// Nothing: a layer below may.
    #[default]
    Nothing,
    /// It is not there, whatever is below.
    Gone,
    /// This.
    Content(String),
}

/// What a layer says of both.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Found {
    passwd: Said,
    group: Said,
}

/// Reads both files; one that no layer has is empty.
pub(crate) fn users(source: &Source, layers: &[Descriptor]) -> Result<Users, FilesError> {
    let mut found = Found::default();
    for layer in layers.iter().rev() {
        let here = layer_files(source, layer)?;
        if found.passwd == Said::Nothing {
            found.passwd = here.passwd;
        }
        if found.group == Said::Nothing {
            found.group = here.group;
        }
        if found.passwd != Said::Nothing && found.group != Said::Nothing {
            break;
        }
    }
    let text = |said| match said {
        Said::Content(text) => text,
        Said::Nothing | Said::Gone => String::new(),
    };
    Ok(Users {
        passwd: text(found.passwd),
        group: text(found.group),
    })
}

#[derive(Clone, Copy)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

fn packing(layer: &Descriptor) -> Result<Packing, FilesError> {
    let media_type = layer.media_type.as_str();
    if media_type.ends_with("+encrypted") {
        return Err(FilesError::Encrypted(layer.digest.clone()));
    }
    match media_type.rsplit_once(['+', '.']) {
        Some((_, "gzip")) => Ok(Packing::Gzip),
        Some((_, "zstd")) => Ok(Packing::Zstd),
        Some((_, "tar")) => Ok(Packing::None),
        _ => Err(FilesError::MediaType {
            digest: layer.digest.clone(),
            media_type: media_type.chars().take(100).collect(),
        }),
    }
}

fn layer_files(source: &Source, layer: &Descriptor) -> Result<Found, FilesError> {
    let packing = packing(layer)?;
    let digest = &layer.digest;
    let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
    let (fetched, read) = thread::scope(|scope| {
        let reading = scope.spawn(move || read_archive(Chunks::new(receiver), packing));
        let mut sink = Sink {
            sender,
            hasher: digest.hasher(),
        };
        let fetched = source.blob(digest, layer.size, &mut sink);
        let Sink { sender, hasher } = sink;
        drop(sender);
        let panicked = || Err(io::Error::other("the thread that reads it panicked"));
        let read = reading.join().unwrap_or_else(|_| panicked());
        (fetched.map(|()| hasher.finish()), read)
    });
    let found = fetched.map_err(|source| FilesError::Fetch {
        digest: digest.clone(),
        source,
    })?;
    if found != *digest {
        return Err(FilesError::Digest(digest.clone()));
    }
    read.map_err(|source| FilesError::Archive {
        digest: digest.clone(),
        source,
    })
}

/// Takes a blob's bytes to the thread that reads them.
struct Sink {
    sender: SyncSender<Vec<u8>>,
    hasher: agent_image_registry::Hasher,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        // A reader that failed has said so itself.
        let _ = self.sender.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same bytes, on the other side.
struct Chunks {
    receiver: Receiver<Vec<u8>>,
    chunk: io::Cursor<Vec<u8>>,
}

impl Chunks {
    fn new(receiver: Receiver<Vec<u8>>) -> Self {
        let chunk = io::Cursor::default();
        Self { receiver, chunk }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let amount = self.chunk.read(buffer)?;
            if amount > 0 || buffer.is_empty() {
                return Ok(amount);
            }
            match self.receiver.recv() {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk),
                Err(_) => return Ok(0),
            }
        }
    }
}

fn read_archive(input: impl Read, packing: Packing) -> io::Result<Found> {
    let input = BufReader::new(input);
    match packing {
        Packing::None => scan(input),
        Packing::Gzip => scan(flate2::bufread::MultiGzDecoder::new(input)),
        Packing::Zstd => scan(zstd::Decoder::with_buffer(input)?),
    }
}

fn scan(input: impl Read) -> io::Result<Found> {
    let mut input = input.take(LAYER_BYTES_MAX);
    let mut found = Found::default();
    let mut archive = tar::Archive::new(&mut input);
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path_bytes().into_owned();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let is_file = entry.header().entry_type().is_file();
        match path {
            b"etc/passwd" => found.passwd = said(entry, is_file)?,
            b"etc/group" => found.group = said(entry, is_file)?,
            b"etc/.wh.passwd" => found.passwd = Said::Gone,
            b"etc/.wh.group" => found.group = Said::Gone,
            b".wh.etc" | b"etc/.wh..wh..opq" | b".wh..wh..opq" => {
                for one in [&mut found.passwd, &mut found.group] {
                    if *one == Said::Nothing {
                        *one = Said::Gone;
                    }
                }
            }
            _ => {}
        }
    }
    // What follows the archive's end belongs to the layer.
    io::copy(&mut input, &mut io::sink())?;
    Ok(found)
}

fn said(entry: impl Read, is_file: bool) -> io::Result<Said> {
    if !is_file {
        return Err(io::Error::other("a user database is no plain file"));
    }
    let mut text = Vec::new();
    entry.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Said::Content(String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, path, text.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn both_files_are_found_wherever_they_are_in_a_layer() {
        let tar = archive(&[
            ("bin/sh", "x"),
            ("etc/passwd", "a:x:1:2"),
            ("./etc/group", "g"),
        ]);
        let found = read_archive(tar.as_slice(), Packing::None).unwrap();
        assert_eq!(found.passwd, Said::Content("a:x:1:2".to_owned()));
        assert_eq!(found.group, Said::Content("g".to_owned()));
    }

    #[test]
    fn a_removed_file_is_not_looked_for_below() {
        for (name, passwd, group) in [
            ("etc/.wh.passwd", Said::Gone, Said::Nothing),
            ("etc/.wh..wh..opq", Said::Gone, Said::Gone),
            (".wh.etc", Said::Gone, Said::Gone),
            ("var/x", Said::Nothing, Said::Nothing),
        ] {
            let found = read_archive(archive(&[(name, "")]).as_slice(), Packing::None).unwrap();
            assert_eq!(found, Found { passwd, group }, "{name}");
        }
    }

    #[test]
    fn damaged_layers_are_refused() {
        assert!(read_archive([7; 600].as_slice(), Packing::None).is_err());
        assert!(read_archive([7; 600].as_slice(), Packing::Gzip).is_err());
        assert!(read_archive([7; 600].as_slice(), Packing::Zstd).is_err());
    }
}
