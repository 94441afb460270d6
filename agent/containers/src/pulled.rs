//! What was pulled for the images that the policy names, each once for the pod.
//!
//! The policy names images by digest, and what was verified stays in memory and storage that
//! only this guest reads: a container that comes again needs no registry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type Slot<T> = Arc<Mutex<Option<T>>>;

/// Images by name, as far as they were pulled.
#[derive(Debug)]
pub(crate) struct Pulled<T> {
    slots: Mutex<BTreeMap<String, Slot<T>>>,
}

impl<T> Default for Pulled<T> {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
        }
    }
}

impl<T: Clone> Pulled<T> {
    /// Keeps these from now on; what is not among them is pulled whenever it is asked for.
    pub(crate) fn keep(&self, names: &[String]) {
        let mut slots = lock(&self.slots);
        for name in names {
            slots.entry(name.clone()).or_default();
        }
    }

    /// The image of this name. Who comes while it is being pulled waits for that, which a pull's
    /// own deadline ends; who finds that it failed tries again.
    pub(crate) fn get<E>(&self, name: &str, pull: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let slot = lock(&self.slots).get(name).map(Arc::clone);
        let Some(slot) = slot else {
            return pull();
        };
        let mut kept = lock(&slot);
        if let Some(image) = &*kept {
            return Ok(image.clone());
        }
        let image = pull()?;
        *kept = Some(image.clone());
        Ok(image)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    fn keeping(name: &str) -> Pulled<u32> {
        let pulled = Pulled::default();
        pulled.keep(&[name.to_owned()]);
        pulled
    }

    #[test]
    fn an_image_of_the_policy_is_pulled_once_whoever_asks_and_another_each_time() {
        let (pulled, pulls) = (keeping("web"), AtomicU32::new(0));
        let pull = || {
            thread::sleep(Duration::from_millis(20));
            Ok::<_, Infallible>(pulls.fetch_add(1, Ordering::Relaxed))
        };
        thread::scope(|scope| {
            let asked: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| pulled.get("web", pull)))
                .collect();
            for one in asked {
                assert_eq!(one.join().unwrap(), Ok(0));
            }
        });
        pulled.keep(&["web".to_owned()]);
        assert_eq!(pulled.get("web", pull), Ok(0));
        assert_eq!(pulled.get("other", pull), Ok(1));
        assert_eq!(pulled.get("other", pull), Ok(2));
    }

    #[test]
    fn a_pull_that_failed_is_tried_again() {
        let pulled = keeping("web");
        assert_eq!(pulled.get("web", || Err("silence")), Err("silence"));
        assert_eq!(pulled.get("web", || Ok::<_, &str>(7)), Ok(7));
        assert_eq!(pulled.get("web", || Err("never asked")), Ok(7));
    }
}
