//! Asks for each key once, however many layers want it at the same time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{KeyError, KeyProvider, ResourceUri, Secret};

/// More keys than any pod has; what comes after them is not kept.
const KEPT_MAX: usize = 256;

type Slot = Arc<Mutex<Option<Secret>>>;

/// Remembers what another provider has given.
pub struct Cached<P> {
    inner: P,
    slots: Mutex<BTreeMap<ResourceUri, Slot>>,
}

impl<P: KeyProvider> Cached<P> {
    /// Puts a memory before a provider.
    pub fn new(inner: P) -> Self {
        Self {
            inner,
            slots: Mutex::default(),
        }
    }

    fn slot(&self, uri: &ResourceUri) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= KEPT_MAX && !slots.contains_key(uri) {
            return Slot::default();
        }
        slots.entry(uri.clone()).or_default().clone()
    }
}

impl<P: KeyProvider> KeyProvider for Cached<P> {
    /// Whoever comes first fetches, the others wait for it; a failure is not remembered.
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
        let slot = self.slot(uri);
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = &*kept {
            return Ok(secret.clone());
        }
        let secret = self.inner.fetch(uri)?;
        *kept = Some(secret.clone());
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting {
        asked: AtomicUsize,
    }

    impl KeyProvider for Counting {
        fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
            let earlier = self.asked.fetch_add(1, Ordering::SeqCst);
            match earlier {
                0 => Err(KeyError::Absent(uri.clone())),
                _ => Ok(Secret::new(b"key".to_vec())),
            }
        }
    }

    #[test]
    fn each_key_is_asked_for_once_and_failures_again() {
        let cached = Cached::new(Counting::default());
        let uri = ResourceUri::parse("kbs:///a/b/c").unwrap();
        assert!(cached.fetch(&uri).is_err());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(cached.fetch(&uri).unwrap().expose(), b"key"));
            }
        });
        assert_eq!(cached.inner.asked.load(Ordering::SeqCst), 2);
    }
}
