//! TCB versions, in each product's own layout (AMD 56860, `TCB_VERSION`).
//!
//! Components are compared one by one. As one number, a newer microcode would hide
//! an older boot loader.

use std::fmt;

use serde::Serialize;

use super::Product;

/// A TCB version, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tcb {
    /// Boot component; Turin and later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader.
    pub bootloader: u8,
    /// Secure processor's operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode of all cores.
    pub microcode: u8,
}

impl Tcb {
    /// Takes the eight bytes apart; `None` if a reserved one is not zero.
    pub fn parse(product: Product, bytes: [u8; 8]) -> Option<Self> {
        match (product.has_fmc(), bytes) {
            (false, [bootloader, tee, 0, 0, 0, 0, snp, microcode]) => Some(Self {
                fmc: None,
                bootloader,
                tee,
                snp,
                microcode,
            }),
            (true, [fmc, bootloader, tee, snp, 0, 0, 0, microcode]) => Some(Self {
                fmc: Some(fmc),
                bootloader,
                tee,
                snp,
                microcode,
            }),
            _ => None,
        }
    }

    /// The eight bytes, in the layout that `fmc` implies.
    pub const fn to_bytes(self) -> [u8; 8] {
        let Self {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        } = self;
        match fmc {
            None => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
            Some(fmc) => [fmc, bootloader, tee, snp, 0, 0, 0, microcode],
        }
    }

    /// Whether no component is below that of `floor`. Layouts must be the same.
    pub fn is_at_least(&self, floor: &Self) -> bool {
        let fmc = match (self.fmc, floor.fmc) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours >= theirs,
            _ => false,
        };
        fmc && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc} ")?;
        }
        write!(
            f,
            "bootloader {} tee {} snp {} microcode {}",
            self.bootloader, self.tee, self.snp, self.microcode
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_differ_by_product() {
        let bytes = [1, 2, 0, 0, 0, 0, 0, 8];
        assert_eq!(Tcb::parse(Product::Genoa, bytes).unwrap().bootloader, 1);
        let turin = Tcb::parse(Product::Turin, bytes).unwrap();
        assert_eq!((turin.fmc, turin.bootloader), (Some(1), 2));
        assert_eq!(turin.to_bytes(), bytes);
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        assert!(Tcb::parse(Product::Milan, [1, 2, 3, 0, 0, 0, 7, 8]).is_none());
        assert!(Tcb::parse(Product::Turin, [1, 2, 3, 4, 0, 0, 7, 8]).is_none());
    }

    #[test]
    fn one_lower_component_is_below_whatever_the_others_are() {
        let floor = Tcb::parse(Product::Milan, [3, 0, 0, 0, 0, 0, 8, 115]).unwrap();
        let newer = Tcb {
            microcode: 255,
            ..floor
        };
        assert!(newer.is_at_least(&floor));
        assert!(
            !Tcb {
                bootloader: 2,
                ..newer
            }
            .is_at_least(&floor)
        );
        assert!(!Tcb { snp: 7, ..newer }.is_at_least(&floor));
        assert!(
            !Tcb {
                fmc: Some(9),
                ..newer
            }
            .is_at_least(&floor)
        );
    }
}
