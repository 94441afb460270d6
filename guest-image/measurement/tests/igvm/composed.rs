//! Files that are written here: the other implementation reads them, and their digest is that
//! of the launch that they stand for.

use std::{env, fs, path::PathBuf};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use guest_image_measurement::{
    Firmware, KernelHashes, Launch, MeasureError, SevFeatures, Sha256Digest, Sha384Digest,
    VcpuCount, VcpuModel, Vmm,
    id_block::{AuthenticationError, IdAuthentication, IdBlock, SigningKey},
    igvm::{ComposeError, Contents, IdBlockError, Igvm, Loader, compose},
};
use igvm::{IgvmDirectiveHeader, IgvmFile, IsolationType};

const AMD_SEV: &[u8] = include_bytes!("../vectors/ovmf_AmdSev_suffix.bin");
const OVMF_X64: &[u8] = include_bytes!("../vectors/ovmf_OvmfX64_suffix.bin");
const POLICY: u64 = 0x3_0000;

fn kernel() -> KernelHashes {
    let digest = Sha256Digest::of;
    KernelHashes::new(digest(b"kernel"), Some(digest(b"initrd")), "quiet")
}

fn contents<'a>(firmware: &'a [u8], kernel: &'a KernelHashes, vcpus: u16) -> Contents<'a> {
    Contents {
        firmware,
        kernel,
        signature: VcpuModel::Milan.signature(),
        features: SevFeatures::SNP,
        vcpus: VcpuCount::new(vcpus).unwrap(),
        policy: POLICY,
    }
}

fn directly_launched(contents: &Contents<'_>) -> Sha384Digest {
    let firmware = Firmware::parse(contents.firmware).unwrap();
    let launch = Launch {
        firmware: &firmware,
        kernel: Some(contents.kernel),
        signature: contents.signature,
        features: contents.features,
        vmm: Vmm::Qemu,
    };
    launch.digest(contents.vcpus).unwrap()
}

#[test]
fn the_digest_is_that_of_the_launch_without_a_file() {
    let kernel = kernel();
    for vcpus in [1, 2, 5] {
        let contents = contents(AMD_SEV, &kernel, vcpus);
        let file = compose(&contents, None).unwrap();
        let parsed = Igvm::parse(&file).unwrap();
        assert_eq!((parsed.processors(), parsed.policy()), (vcpus, POLICY));
        let digest = parsed.digest(Loader::Qemu).unwrap();
        assert_eq!(digest, directly_launched(&contents));
    }
}

/// Debian's `ovmf-amdsev` installs the file; `KATA_CC_OVMF` names another.
#[test]
fn a_file_with_real_firmware_has_the_digest_of_its_launch() {
    let installed = PathBuf::from("/usr/share/ovmf/OVMF.amdsev.fd");
    let path = env::var_os("KATA_CC_OVMF").map_or(installed, PathBuf::from);
    let Ok(firmware) = fs::read(&path) else {
        eprintln!("skipped: no firmware at {} (KATA_CC_OVMF)", path.display());
        return;
    };
    let kernel = kernel();
    let contents = contents(&firmware, &kernel, 4);
    let file = compose(&contents, None).unwrap();
    let digest = Igvm::parse(&file).unwrap().digest(Loader::Qemu).unwrap();
    assert_eq!(digest, directly_launched(&contents));
    IgvmFile::new_from_binary(&file, Some(IsolationType::Snp)).unwrap();
}

#[test]
fn another_implementation_reads_it_and_writes_the_same_bytes() {
    let kernel = kernel();
    let file = compose(&contents(AMD_SEV, &kernel, 3), None).unwrap();
    let read = IgvmFile::new_from_binary(&file, Some(IsolationType::Snp)).unwrap();
    let states = read.directives().iter().filter_map(|header| match header {
        IgvmDirectiveHeader::SnpVpContext {
            gpa,
            vp_index,
            vmsa,
            ..
        } => Some((*gpa, *vp_index, vmsa.rip, vmsa.cs.base)),
        _ => None,
    });
    let ap = 0x80_b004;
    let further = |index| (0xffff_ffff_f000, index, ap & 0xffff, ap & 0xffff_0000);
    let first = (0xffff_ffff_f000, 0, 0xfff0, 0xffff_0000);
    assert_eq!(states.collect::<Vec<_>>(), [first, further(1), further(2)]);
    let mut again = Vec::new();
    read.serialize(&mut again).unwrap();
    assert!(again == file);
}

/// The first digest is also what `igvm` 0.5 computes with its feature `corim`, which is not a
/// development dependency because of all that it brings.
#[test]
fn the_bytes_and_digests_of_a_known_file_stay() {
    let kernel = kernel();
    let file = compose(&contents(AMD_SEV, &kernel, 2), None).unwrap();
    let digest = |loader| {
        let parsed = Igvm::parse(&file).unwrap();
        parsed.digest(loader).unwrap().to_string()
    };
    assert_eq!(
        digest(Loader::FileOrder),
        "5a754c254f8a963a5aed28955ed2de35da3793e7f375c7b0cf83cf01cfdb77400f866ea1d3c53fa903057e491d1be723"
    );
    assert_eq!(
        digest(Loader::Qemu),
        "45c0e7659cf1758c190cdbae6f06d0860ba83257c9bf799eca73d8d00b6fac9439db0b0cb6496afe8108a06557e19327"
    );
    assert_eq!(
        Sha256Digest::of(&file).to_string(),
        "07b0edb08b2b3450554da01a962592cc7d54f1b7807b5f8f5963e0d5ac24e9aa"
    );
}

#[test]
fn the_same_contents_give_the_same_bytes_and_each_input_shows() {
    let same = kernel();
    let composed = |contents: &Contents<'_>| compose(contents, None).unwrap();
    let base = contents(AMD_SEV, &same, 2);
    let file = composed(&base);
    assert!(file == composed(&base));
    let other = KernelHashes::new(Sha256Digest::of(b"kernel"), None, "quiet");
    let variants = [
        Contents {
            kernel: &other,
            ..base
        },
        Contents {
            policy: POLICY + 1,
            ..base
        },
        Contents {
            features: SevFeatures::SNP_DEBUG_SWAP,
            ..base
        },
        Contents {
            signature: VcpuModel::Genoa.signature(),
            ..base
        },
        contents(AMD_SEV, &same, 3),
    ];
    for variant in variants {
        assert!(file != composed(&variant), "{variant:?}");
    }
}

#[test]
fn firmware_that_cannot_start_the_guest_is_refused() {
    let kernel = kernel();
    let refused = compose(&contents(OVMF_X64, &kernel, 1), None);
    assert_eq!(
        refused,
        Err(ComposeError::Launch(MeasureError::NoHashTable))
    );
    let refused = compose(&contents(&AMD_SEV[..4000], &kernel, 1), None);
    assert!(matches!(refused, Err(ComposeError::Firmware(_))));
}

fn key() -> SigningKey {
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    let body = BASE64_STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    SigningKey::from_pem(&pem).unwrap()
}

fn block(launch_digest: Sha384Digest) -> IdBlock {
    IdBlock {
        launch_digest,
        family_id: *b"kata-cc family..",
        image_id: *b"kata-cc image...",
        guest_svn: 3,
        policy: POLICY,
    }
}

#[test]
fn an_id_block_comes_back_authentic_with_and_without_an_author() {
    let kernel = kernel();
    let contents = contents(AMD_SEV, &kernel, 2);
    let digest = directly_launched(&contents);
    let (id_key, author) = (key(), key());
    for author in [None, Some(&author)] {
        let random = SystemRandom::new();
        let block = block(digest);
        let signed = IdAuthentication::sign(&block, &id_key, author, &random).unwrap();
        let file = compose(&contents, Some((&block, &signed))).unwrap();
        let parsed = Igvm::parse(&file).unwrap();
        assert_eq!(parsed.id_block(), Some(&block));
        // The block is not part of what it is about.
        assert_eq!(parsed.digest(Loader::Qemu), Ok(digest));
        let found = parsed.authenticate(digest).unwrap().unwrap();
        assert!(found == signed);
        let read = IgvmFile::new_from_binary(&file, Some(IsolationType::Snp)).unwrap();
        let Some(IgvmDirectiveHeader::SnpIdBlock {
            ld,
            guest_svn,
            author_key_enabled,
            ..
        }) = read.directives().last()
        else {
            panic!("the last directive is the ID block");
        };
        assert_eq!((ld, *guest_svn), (digest.as_bytes(), 3));
        assert_eq!(*author_key_enabled == 1, author.is_some());
    }
}

#[test]
fn an_id_block_for_another_launch_or_policy_is_not_accepted() {
    let kernel = kernel();
    let base = contents(AMD_SEV, &kernel, 2);
    let digest = directly_launched(&base);
    let signed = |block: &IdBlock| {
        IdAuthentication::sign(block, &key(), None, &SystemRandom::new()).unwrap()
    };
    let other = block(Sha384Digest::of(b"another"));
    let file = compose(&base, Some((&other, &signed(&other)))).unwrap();
    let refused = Igvm::parse(&file).unwrap().authenticate(digest);
    assert!(matches!(refused, Err(IdBlockError::OtherDigest { .. })));

    // The signature covers the policy, and loaders take that from the file.
    let block = block(digest);
    let debuggable = Contents {
        policy: POLICY | 1 << 19,
        ..base
    };
    let file = compose(&debuggable, Some((&block, &signed(&block)))).unwrap();
    let refused = Igvm::parse(&file).unwrap().authenticate(digest);
    let unauthentic = IdBlockError::Authentication(AuthenticationError::Signature);
    assert!(matches!(refused, Err(error) if error == unauthentic));
    let unsigned = compose(&base, None).unwrap();
    let none = Igvm::parse(&unsigned).unwrap().authenticate(digest);
    assert!(matches!(none, Ok(None)));
}
