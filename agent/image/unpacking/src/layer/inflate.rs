//! Decompression: gzip of any number of members (RFC 1952), zstd of any number of
//! frames, skippable ones included (RFC 8878), or none at all.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::media::Compression;

/// RFC 8878 asks decoders to support windows of 8 MiB and lets them refuse larger
/// ones, which are memory that the archive chooses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The unpacked stream over a stored one.
pub(crate) fn decoder<'a, R: BufRead + 'a>(
    compression: Compression,
    stored: R,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(stored),
        Compression::Gzip => Box::new(MultiGzDecoder::new(stored)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpack(compression: Compression, stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decoder(compression, stored)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_members_and_zstd_frames_are_joined() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(unpack(Compression::Gzip, &members).unwrap(), b"one two");
        let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0xyz".to_vec();
        let frames = [
            skippable.clone(),
            zstd::encode_all(&b"one "[..], 1).unwrap(),
            skippable.clone(),
            zstd::encode_all(&b"two"[..], 19).unwrap(),
            skippable,
        ];
        assert_eq!(
            unpack(Compression::Zstd, &frames.concat()).unwrap(),
            b"one two"
        );
        assert_eq!(unpack(Compression::None, b"plain").unwrap(), b"plain");
    }

    #[test]
    fn cut_and_damaged_streams_are_errors() {
        let (gzip, zstd) = (
            gzip(&[7; 5000]),
            zstd::encode_all(&[7; 5000][..], 3).unwrap(),
        );
        for (compression, stored) in [(Compression::Gzip, gzip), (Compression::Zstd, zstd)] {
            for cut in [1, 4, stored.len() / 2, stored.len() - 1] {
                assert!(
                    unpack(compression, &stored[..cut]).is_err(),
                    "{compression:?} {cut}"
                );
            }
            let mut garbage = stored.clone();
            garbage.extend(b"garbage after the end");
            assert!(unpack(compression, &garbage).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn windows_larger_than_the_limit_are_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(24).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&vec![1; 1 << 20]).unwrap();
        assert!(unpack(Compression::Zstd, &encoder.finish().unwrap()).is_err());
    }
}
