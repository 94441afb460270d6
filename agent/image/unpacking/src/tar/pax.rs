//! PAX extended headers: `length key=value\n`, values in decimal or UTF-8.

use super::{TarError, Time, header::id, sparse};

/// Name and value of each extended attribute, in the archive's order.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Where star, and every image builder after it, keeps xattrs.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Where GNU tar says which parts of a file are holes.
const SPARSE: &[u8] = b"GNU.sparse.";

/// The records that say something about an entry of an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: Option<sparse::Records>,
}

impl Records {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TarError> {
        let mut records = Self::default();
        for record in iterate(bytes) {
            let (key, value) = record?;
            records.apply(key, value)?;
        }
        Ok(records)
    }

    /// Global records hold for all later entries. Builders write comments only
    /// (`git archive` the commit's id); others would need care for no user.
    pub(super) fn check_global(bytes: &[u8]) -> Result<(), TarError> {
        for record in iterate(bytes) {
            let (key, _) = record?;
            if key != b"comment" {
                return Err(TarError::PaxGlobal(
                    String::from_utf8_lossy(key).chars().take(80).collect(),
                ));
            }
        }
        Ok(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            // An empty value takes a record back.
            b"path" => self.path = Some(value.to_vec()).filter(|value| !value.is_empty()),
            b"linkpath" => self.link = Some(value.to_vec()).filter(|value| !value.is_empty()),
            b"size" => {
                self.size = Some(
                    decimal("size", value)
                        .and_then(|v| u64::try_from(v).map_err(|_| TarError::Range("size")))?,
                )
            }
            b"uid" => self.uid = Some(id("uid", decimal("uid", value)?)?),
            b"gid" => self.gid = Some(id("gid", decimal("gid", value)?)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.set_xattr(name, value)?;
                } else if let Some(key) = key.strip_prefix(SPARSE) {
                    self.sparse.get_or_insert_default().apply(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarError> {
        if name.is_empty() || name.contains(&0) {
            return Err(TarError::PaxRecord);
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

fn iterate(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), TarError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (record, rest) = match split_record(bytes) {
            Some(split) => split,
            None => {
                bytes = &[];
                return Some(Err(TarError::PaxRecord));
            }
        };
        bytes = rest;
        Some(Ok(record))
    })
}

type Record<'a> = (&'a [u8], &'a [u8]);

/// The length counts the whole record, its own digits and the line feed included.
fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = digits(bytes.get(..blank)?)?.try_into().ok()?;
    let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record
        .iter()
        .position(|byte| *byte == b'=')
        .filter(|at| *at > 0)?;
    Some((
        (&record[..equals], &record[equals + 1..]),
        bytes.get(length..)?,
    ))
}

fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn decimal(what: &'static str, value: &[u8]) -> Result<i64, TarError> {
    let (negative, magnitude) = match value.strip_prefix(b"-") {
        Some(magnitude) => (true, magnitude),
        None => (false, value),
    };
    if magnitude.is_empty() || !magnitude.iter().all(u8::is_ascii_digit) {
        return Err(TarError::NotANumber(what));
    }
    let magnitude = digits(magnitude).ok_or(TarError::Range(what))?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// `seconds[.fraction]`; a negative time's fraction counts away from zero, so
/// −0.25 is −1 s + 750 000 000 ns.
fn time(value: &[u8]) -> Result<Time, TarError> {
    const WHAT: &str = "modification time";
    let dot = value
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(value.len());
    let (whole, fraction) = value.split_at(dot);
    let negative = whole.first() == Some(&b'-');
    let seconds = decimal(WHAT, whole)?;
    let mut nanoseconds: u32 = 0;
    let digits = fraction.get(1..).unwrap_or_default();
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(TarError::NotANumber(WHAT));
    }
    for place in 0..9 {
        let digit = digits.get(place).map_or(0, |digit| digit - b'0');
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    if negative && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).ok_or(TarError::Range(WHAT))?;
        return Ok(Time {
            seconds,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Ok(Time {
        seconds,
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let length = (1..)
            .map(|digits| body + digits)
            .find(|l| l.to_string().len() + body == *l)
            .unwrap();
        format!("{length} {key}={value}\n").into_bytes()
    }

    #[test]
    fn records_are_read() {
        let bytes = [
            record("path", "a/b=c"),
            record("uid", "2097152"),
            record("size", "8589934592"),
            record("mtime", "-1.25"),
            record("SCHILY.xattr.user.x", "v\n=\0"),
        ]
        .concat();
        let records = Records::parse(&bytes).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a/b=c"[..]));
        assert_eq!(
            (records.uid, records.size),
            (Some(2_097_152), Some(8_589_934_592))
        );
        assert_eq!(
            records.mtime,
            Some(Time {
                seconds: -2,
                nanoseconds: 750_000_000
            })
        );
        assert_eq!(records.xattrs, [(b"user.x".to_vec(), b"v\n=\0".to_vec())]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (key, value) in [
            ("uid", "4294967296"),
            ("uid", "4294967295"),
            ("uid", "-1"),
            ("gid", "4294967296"),
            ("gid", "-1"),
            ("size", "-1"),
            ("size", "99999999999999999999"),
            ("mtime", "99999999999999999999"),
            ("uid", ""),
            ("uid", "+1"),
            ("uid", "0x1"),
            ("mtime", "1.x"),
            ("mtime", "."),
        ] {
            assert!(
                Records::parse(&record(key, value)).is_err(),
                "{key}={value}"
            );
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"3 a",
            b"99 a=b\n",
            b"6 a=b\n\n",
            b"5 =b\n",
            b"6 ab=\n",
            b"4294967296 a=b\n",
            b"-6 a=b\n",
            b"6 a=bc",
            b"0 a=b\n",
            b"3 \n",
            b"2 a=b\n",
        ] {
            assert!(
                Records::parse(bytes).is_err() || bytes == b"6 ab=\n",
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn global_records_other_than_comments_are_refused() {
        assert!(Records::check_global(&record("comment", "x")).is_ok());
        assert!(Records::check_global(&record("uid", "0")).is_err());
    }
}
