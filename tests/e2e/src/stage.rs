//! The bed that all scenarios of one test program share, and who has it when.

use std::{
    io::Write,
    sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use anyhow::{Result, anyhow};
use tests_harness::{
    Bed, BedOptions, Container, ContainerRequest, Handler, Leftovers, Pod, PodRequest, Prefix,
    Release, firmware_is_installed,
};

/// A bed, its handler under test, and the pod that scenarios share.
#[derive(Debug)]
pub struct Stage {
    bed: Bed,
    handler: Handler,
    /// Read by scenarios that get along, written by those that do not.
    turn: RwLock<()>,
    shared: OnceLock<Container<'static>>,
    baseline: OnceLock<Leftovers>,
}

/// Why there is no stage: nothing is broken, something is missing.
#[derive(Debug, Clone)]
enum Missing {
    Skipped(String),
    Failed(String),
}

impl Stage {
    /// Plays `scenario` on `release`, or prints why not.
    ///
    /// # Errors
    /// When the scenario fails, or the bed cannot be made.
    pub fn play(release: Release, scenario: fn(&'static Self) -> Result<()>) -> Result<()> {
        static STAGE: OnceLock<Result<Stage, Missing>> = OnceLock::new();
        match STAGE.get_or_init(|| Self::set(release)) {
            Ok(stage) => scenario(stage),
            Err(Missing::Failed(why)) => Err(anyhow!("the bed cannot be made: {why}")),
            Err(Missing::Skipped(why)) => {
                // Not captured by the test program, so that a skip is seen.
                let _ = writeln!(std::io::stderr(), "skipped on {release:?}: {why}");
                Ok(())
            }
        }
    }

    fn set(release: Release) -> Result<Self, Missing> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Missing::Skipped("a bed needs root".into()));
        }
        let containerd = release.provide().map_err(|error| match release {
            Release::Newest => Missing::Skipped(format!("{error:#}")),
            _ => Missing::Failed(format!("{error:#}")),
        })?;
        let handler = match std::env::var("KATA_CC_TEST_HANDLER").as_deref() {
            Ok("runc") => Handler::Runc,
            _ => Handler::KataCc,
        };
        let up = || -> Result<Bed> {
            let prefix = match handler {
                Handler::Runc => None,
                Handler::KataCc => Some(Prefix::of_build()?),
            };
            Bed::up(BedOptions {
                containerd,
                prefix,
                detached: false,
            })
        };
        let bed = up().map_err(|error| Missing::Failed(format!("{error:#}")))?;
        Ok(Self {
            bed,
            handler,
            turn: RwLock::new(()),
            shared: OnceLock::new(),
            baseline: OnceLock::new(),
        })
    }

    /// The bed.
    #[must_use]
    pub fn bed(&self) -> &Bed {
        &self.bed
    }

    /// The handler under test.
    #[must_use]
    pub fn handler(&self) -> Handler {
        self.handler
    }

    /// Is the pod in a VM, or on the baseline?
    #[must_use]
    pub fn has_vms(&self) -> bool {
        self.handler == Handler::KataCc
    }

    /// Can pods have the simulated processor? Says why where they cannot.
    pub fn has_simulated_tee(&self) -> bool {
        let measures = firmware_is_installed();
        if self.has_vms() && !measures {
            eprintln!("skipped: the firmware of ovmf-amdsev is not installed");
        }
        self.has_vms() && measures
    }

    /// Waits for a turn beside others.
    pub fn together(&self) -> RwLockReadGuard<'_, ()> {
        self.turn
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits for a turn alone.
    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs a pod without containers.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn pod(&self) -> Result<Pod<'_>> {
        Pod::run(&self.bed, self.handler, PodRequest::default())
    }

    /// A container that sleeps, for scenarios that only look into one.
    ///
    /// # Errors
    /// containerd's answer.
    pub fn shared(&'static self) -> Result<&'static Container<'static>> {
        static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _making = MAKING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(container) = self.shared.get() {
            return Ok(container);
        }
        // Kept until the process, and with it the bed, ends.
        let pod: &'static Pod<'static> = Box::leak(Box::new(self.pod()?));
        let container = pod.start(ContainerRequest::busybox(&["sleep", "100000"]))?;
        Ok(self.shared.get_or_init(|| container))
    }

    /// Is this the sandbox of [`Stage::shared`]?
    #[must_use]
    pub fn is_shared(&self, sandbox: &str) -> bool {
        self.shared
            .get()
            .is_some_and(|container| container.sandbox() == sandbox)
    }

    /// What the bed holds now that its first pod has come and gone; to be called alone.
    ///
    /// # Errors
    /// When the first pod does not run.
    pub fn before(&self) -> Result<Leftovers> {
        if self.baseline.get().is_none() {
            let _ = self
                .baseline
                .set(Leftovers::baseline(&self.bed, self.handler)?);
        }
        Leftovers::now(self.bed.node())
    }
}
