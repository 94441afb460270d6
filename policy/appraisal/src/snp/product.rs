//! Products: which root, which TCB layout and which CPUs belong together.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A generation of AMD EPYC with a root key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Product {
    /// Family 19h, models 00h–0Fh.
    Milan,
    /// Family 19h, models 10h–1Fh and A0h–AFh; Bergamo and Siena are endorsed as Genoa.
    Genoa,
    /// Family 1Ah, models 00h–11h.
    Turin,
}

/// A name is not that of a product with a pinned root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no product is named {0:?}")]
pub struct ProductError(pub String);

impl Product {
    /// Every product.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name in certificates and in requests to AMD's key server.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The product of a CPU, by the family and model of a report of version 3 or later.
    pub const fn of_cpu(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0F) => Some(Self::Milan),
            (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(Self::Genoa),
            (0x1A, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// The product of a certificate's productName: `Milan`, or with a stepping `Milan-B0`.
    pub(crate) fn of_certificate(name: &str) -> Option<Self> {
        let product = match name.split_once('-') {
            None => name,
            Some((product, stepping)) => match stepping.as_bytes() {
                [b'A'..=b'Z', b'0'..=b'9'] => product,
                _ => return None,
            },
        };
        match product {
            "Bergamo" | "Siena" => Some(Self::Genoa),
            _ => product.parse().ok(),
        }
    }

    /// Whether the TCB starts with the boot component, as from Turin on.
    pub(crate) const fn has_fmc(self) -> bool {
        matches!(self, Self::Turin)
    }

    /// structVersion of the product's certificates.
    pub(crate) const fn certificate_version(self) -> u8 {
        match self {
            Self::Milan | Self::Genoa => 0,
            Self::Turin => 1,
        }
    }

    /// How many bytes of the chip id are in use.
    pub(crate) const fn chip_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Product {
    type Err = ProductError;

    fn from_str(name: &str) -> Result<Self, ProductError> {
        Self::ALL
            .into_iter()
            .find(|product| product.name() == name)
            .ok_or_else(|| ProductError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_map_to_the_product_that_endorses_them() {
        for (family, model, product) in [
            (0x19, 0x01, Some(Product::Milan)),
            (0x19, 0x11, Some(Product::Genoa)),
            (0x19, 0xA0, Some(Product::Genoa)),
            (0x19, 0x20, None),
            (0x19, 0xB0, None),
            (0x1A, 0x02, Some(Product::Turin)),
            (0x1A, 0x12, None),
            (0x1A, 0x50, None),
            (0x17, 0x31, None),
        ] {
            assert_eq!(
                Product::of_cpu(family, model),
                product,
                "{family:x} {model:x}"
            );
        }
    }

    #[test]
    fn certificate_names_carry_a_stepping_or_none() {
        assert_eq!(Product::of_certificate("Milan-B0"), Some(Product::Milan));
        assert_eq!(Product::of_certificate("Turin"), Some(Product::Turin));
        assert_eq!(Product::of_certificate("Siena-A1"), Some(Product::Genoa));
        for name in ["milan", "Milan-", "Milan-B00", "Venice", "", "Genoa-b0"] {
            assert_eq!(Product::of_certificate(name), None, "{name}");
        }
    }
}
