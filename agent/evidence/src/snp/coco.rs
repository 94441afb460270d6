//! A report in the form in which CoCo's attesters send it: decoded, without the received
//! bytes, which the verifier rebuilds before it checks the signature.

use serde_json::{Value, json};

use super::layout::{REPORT_LEN, ReportLengthError};
use crate::bytes::{Reader, Truncated, all_zero};

/// The signature's offset.
const SIGNED_LEN: usize = 0x2A0;
/// The first family whose TCB has a version of its boot component: Turin's.
const FAMILY_WITH_FMC: u8 = 0x1A;
/// GUID, offset and length (AMD 56421, extended guest request).
const TABLE_ENTRY_LEN: usize = 24;
/// More entries than any table has.
const ENTRIES_MAX: usize = 32;
/// More than a chain and its list take, in bytes. The table is the host's: its entries may all be
/// the whole of it, and each byte takes many here.
const CONTENTS_BYTES_MAX: usize = 64 << 10;
/// GUIDs of the table's entries, bytes in the order of their text, and their names here.
const KINDS: [(&str, &str); 5] = [
    ("c0b406a4a803495297433fb6014cd0ae", "ARK"),
    ("4ab7b379bbac4fe4a02f05aef327c782", "ASK"),
    ("63da758de6644564adc5f4b93be8accd", "VCEK"),
    ("a8074bc2a25a483eaae639c045a0b8a1", "VLEK"),
    ("92f81bc358114d3d97ffd19f88dc67ea", "CRL"),
];

/// Evidence in CoCo's form, of a report and the host's certificate table. A table that cannot
/// be read is left out: the verifier gets certificates elsewhere, or refuses.
///
/// # Errors
///
/// [`ReportLengthError`] if there are more or fewer bytes than a report has.
pub fn coco_form(report: &[u8], table: &[u8]) -> Result<Value, ReportLengthError> {
    if report.len() != REPORT_LEN {
        return Err(ReportLengthError(report.len()));
    }
    let decoded = decode(report).map_err(|_| ReportLengthError(report.len()))?;
    let chain = certificates(table).unwrap_or_default();
    let chain = if chain.is_empty() {
        Value::Null
    } else {
        Value::Array(chain)
    };
    Ok(json!({"attestation_report": decoded, "cert_chain": chain}))
}

/// The fields in the report's order (AMD 56860, `ATTESTATION_REPORT`).
fn decode(report: &[u8]) -> Result<Value, Truncated> {
    let mut r = Reader::new(report);
    let version = r.u32_le()?;
    let with_fmc = version >= 3 && report.get(0x188) >= Some(&FAMILY_WITH_FMC);
    let mut fields = json!({
        "version": version,
        "guest_svn": r.u32_le()?,
        "policy": u64_le(&mut r)?,
        "family_id": r.take(16)?,
        "image_id": r.take(16)?,
        "vmpl": r.u32_le()?,
        "sig_algo": r.u32_le()?,
        "current_tcb": tcb(&mut r, with_fmc)?,
        "plat_info": u64_le(&mut r)?,
        "key_info": r.u32_le()?,
    });
    r.take(4)?;
    for (name, length) in [
        ("report_data", 64),
        ("measurement", 48),
        ("host_data", 32),
        ("id_key_digest", 48),
        ("author_key_digest", 48),
        ("report_id", 32),
        ("report_id_ma", 32),
    ] {
        fields[name] = r.take(length)?.into();
    }
    fields["reported_tcb"] = tcb(&mut r, with_fmc)?;
    for name in ["cpuid_fam_id", "cpuid_mod_id", "cpuid_step"] {
        let byte = r.u8()?;
        fields[name] = (version >= 3).then_some(byte).into();
    }
    r.take(21)?;
    fields["chip_id"] = r.take(64)?.into();
    fields["committed_tcb"] = tcb(&mut r, with_fmc)?;
    for name in ["current", "committed"] {
        let [build, minor, major, _] = r.array::<4>()?;
        fields[name] = json!({"major": major, "minor": minor, "build": build});
    }
    fields["launch_tcb"] = tcb(&mut r, with_fmc)?;
    for name in ["launch_mit_vector", "current_mit_vector"] {
        let vector = u64_le(&mut r)?;
        fields[name] = (version >= 5).then_some(vector).into();
    }
    let mut signature = Reader::new(report);
    signature.take(SIGNED_LEN)?;
    fields["signature"] = json!({"r": signature.take(72)?, "s": signature.take(72)?});
    Ok(fields)
}

fn u64_le(reader: &mut Reader<'_>) -> Result<u64, Truncated> {
    reader.array().map(u64::from_le_bytes)
}

fn tcb(reader: &mut Reader<'_>, with_fmc: bool) -> Result<Value, Truncated> {
    let [a, b, c, d, _, _, g, microcode] = reader.array::<8>()?;
    let (fmc, bootloader, tee, snp) = if with_fmc {
        (Some(a), b, c, d)
    } else {
        (None, a, b, g)
    };
    Ok(json!({
        "fmc": fmc, "bootloader": bootloader, "tee": tee, "snp": snp, "microcode": microcode,
    }))
}

fn certificates(table: &[u8]) -> Result<Vec<Value>, Truncated> {
    let mut found = Vec::new();
    if all_zero(table) {
        return Ok(found);
    }
    let mut left = CONTENTS_BYTES_MAX;
    let mut entries = Reader::new(table);
    for _ in 0..ENTRIES_MAX {
        let entry = entries.take(TABLE_ENTRY_LEN)?;
        if all_zero(entry) {
            break;
        }
        let mut entry = Reader::new(entry);
        let guid = hex::encode(entry.take(16)?);
        let (offset, length) = (entry.u32_le()?, entry.u32_le()?);
        let mut data = Reader::new(table);
        data.take_u32(offset)?;
        let content = data.take_u32(length)?;
        let wanted = content.len();
        left = left.checked_sub(wanted).ok_or(Truncated { wanted, left })?;
        if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == guid) {
            found.push(json!({"cert_type": kind, "data": content}));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE_BYTES: usize = 256 << 10;

    /// A table of so many entries, each of which is so long.
    fn table(entries: usize, length: usize) -> Vec<u8> {
        let mut table = vec![0; TABLE_BYTES];
        for (entry, (guid, _)) in table
            .chunks_exact_mut(TABLE_ENTRY_LEN)
            .zip(KINDS.iter().cycle())
            .take(entries)
        {
            entry[..16].copy_from_slice(&hex::decode(guid).unwrap());
            entry[16..20].copy_from_slice(&1024_u32.to_le_bytes());
            entry[20..].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        }
        table
    }

    fn chain(table: &[u8]) -> Value {
        let form = coco_form(&[0; REPORT_LEN], table).unwrap();
        form["cert_chain"].clone()
    }

    #[test]
    fn certificates_bear_their_names() {
        let chain = chain(&table(3, 100));
        let kinds: Vec<&str> = chain
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["cert_type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["ARK", "ASK", "VCEK"]);
        assert_eq!(chain[0]["data"].as_array().unwrap().len(), 100);
    }

    #[test]
    fn a_table_whose_entries_are_all_the_whole_of_it_is_left_out() {
        let whole = TABLE_BYTES - 1024;
        for (entries, length) in [(32, whole), (1, whole), (2, 40 << 10), (1, whole + 1)] {
            assert_eq!(chain(&table(entries, length)), Value::Null, "{entries}");
        }
        assert_ne!(chain(&table(1, CONTENTS_BYTES_MAX)), Value::Null);
    }
}
