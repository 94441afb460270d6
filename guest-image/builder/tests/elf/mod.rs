//! The smallest file that passes for a kernel module: an ELF object with `.modinfo`.

const HEADER_BYTES: usize = 64;
const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";

/// A module of `release` that depends on the modules in a comma-separated list.
pub(crate) fn module(depends: &str, release: &str) -> Vec<u8> {
    let info = format!("license=GPL\0depends={depends}\0vermagic={release} SMP\0");
    let info_at = HEADER_BYTES;
    let names_at = info_at + info.len();
    let table_at = (names_at + NAMES.len()).next_multiple_of(8);
    let mut file = Vec::new();
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1_u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1_u32.to_le_bytes());
    file.extend([0, 0, table_at as u64].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 0, 0, 64, 3, 2].map(u16::to_le_bytes).concat());
    file.extend(info.as_bytes());
    file.extend(NAMES);
    file.resize(table_at, 0);
    file.extend([0; 64]);
    section(&mut file, [1, 1], info_at, info.len());
    section(&mut file, [10, 3], names_at, NAMES.len());
    file
}

fn section(file: &mut Vec<u8>, [name, kind]: [u32; 2], at: usize, bytes: usize) {
    file.extend([name, kind].map(u32::to_le_bytes).concat());
    let fields = [0, 0, at as u64, bytes as u64, 0, 1, 0];
    file.extend(fields.map(u64::to_le_bytes).concat());
}
