//! Trust anchors: the ARK of each product, pinned, with AMD's intermediates.
//!
//! Intermediates are kept only so that evidence without them can be judged; each is
//! checked against the root like one that was carried.

use std::collections::BTreeMap;

use super::Product;
use crate::{
    endorsements::{ContainerError, Endorsements},
    x509::Certificate,
};

/// Certificates do not make up the trust anchor of a product.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read as certificates.
    #[error("the trust anchors are not certificates")]
    Container(#[from] ContainerError),
    /// There is no self-signed certificate named `ARK-<product>`.
    #[error("there is no self-signed certificate named ARK-Milan, ARK-Genoa or ARK-Turin")]
    NoRoot,
    /// Two different roots for one product.
    #[error("there are two roots for {0}")]
    TwoRoots(Product),
}

/// One root for each product that is trusted at all.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    roots: BTreeMap<Product, Certificate>,
    pub(super) intermediates: Vec<Certificate>,
}

impl Roots {
    /// AMD's roots, compiled in.
    pub fn amd() -> Self {
        let files = [
            include_bytes!("../../roots/milan_ask_ark_asvk.pem"),
            include_bytes!("../../roots/genoa_ask_ark_asvk.pem"),
            include_bytes!("../../roots/turin_ask_ark_asvk.pem"),
        ];
        let mut roots = Self::default();
        for file in files {
            roots.add(file).expect("the pinned files are read in tests");
        }
        roots
    }

    /// Other roots than AMD's, for a simulated secure processor or a private one.
    ///
    /// # Errors
    ///
    /// [`RootsError`] if the certificates hold no root, or two for one product.
    pub fn parse(bytes: &[u8]) -> Result<Self, RootsError> {
        let mut roots = Self::default();
        roots.add(bytes)?;
        Ok(roots)
    }

    /// Adds roots and intermediates from another container.
    ///
    /// # Errors
    ///
    /// [`RootsError`] if the certificates hold no root, or a second one for a product.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), RootsError> {
        let mut found = false;
        for certificate in Endorsements::parse(bytes)?.certificates {
            let named = Product::ALL
                .into_iter()
                .find(|product| certificate.subject.common_name == root_name(*product));
            match named {
                Some(product) if certificate.is_issued_by(&certificate) => {
                    found = true;
                    let earlier = self.roots.insert(product, certificate.clone());
                    if earlier.is_some_and(|earlier| earlier != certificate) {
                        return Err(RootsError::TwoRoots(product));
                    }
                }
                _ => self.intermediates.push(certificate),
            }
        }
        found.then_some(()).ok_or(RootsError::NoRoot)
    }

    /// The root pinned for a product.
    pub(super) fn of(&self, product: Product) -> Option<&Certificate> {
        self.roots.get(&product)
    }
}

fn root_name(product: Product) -> String {
    format!("ARK-{product}")
}

#[cfg(test)]
mod tests {
    use agent_evidence::Sha256Digest;

    use super::*;

    /// SHA-256 of each ARK's DER, as published.
    const FINGERPRINTS: [(Product, &str); 3] = [
        (
            Product::Milan,
            "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        ),
        (
            Product::Genoa,
            "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        ),
        (
            Product::Turin,
            "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        ),
    ];

    #[test]
    fn pinned_roots_are_the_published_ones() {
        let roots = Roots::amd();
        for (product, fingerprint) in FINGERPRINTS {
            let root = roots.of(product).unwrap();
            assert_eq!(Sha256Digest::of(&[root.as_der()]).to_string(), fingerprint);
        }
    }

    #[test]
    fn pinned_intermediates_are_signed_by_their_root() {
        let roots = Roots::amd();
        assert_eq!(roots.intermediates.len(), 6);
        for intermediate in &roots.intermediates {
            let name = intermediate.common_name();
            let product = name.rsplit('-').next().unwrap().parse().unwrap();
            assert!(
                intermediate.is_issued_by(roots.of(product).unwrap()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_container_without_root_is_no_anchor() {
        let intermediate = Roots::amd().intermediates.swap_remove(0);
        assert_eq!(
            Roots::parse(intermediate.as_der()).unwrap_err(),
            RootsError::NoRoot
        );
    }
}
