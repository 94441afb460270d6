//! A container's cgroup: limits, freezing, the end of all its processes.
//!
//! The path is the guest's choice, made of the container's id; the host's
//! `cgroupsPath` would only let it nest one container in another.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_protocol::id::ContainerId;
use agent_requests::{
    Limits,
    paths::{CGROUP_PARENT, CGROUP_ROOT},
};
use tokio::time::{Instant, sleep};

/// How often the kernel is asked whether the last process is gone. It has no event
/// for "can be removed"; a killed process needs a few of these at most.
const REMOVE_POLL: Duration = Duration::from_millis(5);

/// A cgroup of version 2.
#[derive(Debug, Clone)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The cgroup of a container, there or not.
    #[must_use]
    pub fn of(container: &ContainerId) -> Self {
        Self(Path::new(CGROUP_ROOT).join(CGROUP_PARENT).join(container))
    }

    /// One of its files.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The content of one of its files.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.file(name))
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        // Never creates: in a cgroup that is gone there is nothing to set.
        let mut file = fs::OpenOptions::new().write(true).open(self.file(name))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }

    /// Makes it, whether or not it is there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)
    }

    /// Kills every process in it, also those that are just being born.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; that it is gone is no error.
    pub fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Stops or continues every process in it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })
    }

    /// Lets the kernel kill the container as a whole when it lacks memory, as
    /// Kubernetes expects.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn kill_together(&self) -> io::Result<()> {
        self.write("memory.oom.group", "1")
    }

    /// Sets what the limits name and leaves the rest.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a value.
    pub fn update(&self, limits: &Limits) -> io::Result<()> {
        let bytes = |value: i64| match value {
            -1 => "max".to_owned(),
            value => value.to_string(),
        };
        if let Some(reservation) = limits.memory.reservation {
            let low = if reservation == -1 {
                "0".to_owned()
            } else {
                reservation.to_string()
            };
            self.write("memory.low", &low)?;
        }
        if let Some(limit) = limits.memory.limit {
            self.write("memory.max", &bytes(limit))?;
        }
        if let Some(shares) = limits.cpu.shares {
            self.write("cpu.weight", &weight(shares).to_string())?;
        }
        let quota = limits.cpu.quota.map(bytes);
        match (quota, limits.cpu.period) {
            (Some(quota), Some(period)) => self.write("cpu.max", &format!("{quota} {period}"))?,
            (Some(quota), None) => self.write("cpu.max", &quota)?,
            (None, Some(period)) => {
                let now = self.read("cpu.max")?;
                let quota = now.split_whitespace().next().unwrap_or("max");
                self.write("cpu.max", &format!("{quota} {period}"))?;
            }
            (None, None) => {}
        }
        if let Some(pids) = limits.pids {
            self.write("pids.max", &bytes(pids))?;
        }
        Ok(())
    }

    /// Kills what is left and removes it with what the workload made below it.
    ///
    /// # Errors
    ///
    /// When processes are left at the deadline.
    pub async fn remove(&self, deadline: Instant) -> io::Result<()> {
        loop {
            self.kill()?;
            match remove_tree(&self.0) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(REMOVE_POLL).await,
            }
        }
    }
}

/// Removes the innermost first; files of a cgroup go with it.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Shares of version 1 (2 to 262144, usually 1024) as a weight of version 2 (1 to
/// 10000, usually 100): the curve through these points that runc 1.3 also uses.
fn weight(shares: u64) -> u64 {
    let log = f64::log2(shares.clamp(2, 262_144) as f64);
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10000, so nothing is lost.
    10_f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_the_extremes_and_the_usual_value() {
        for (shares, expected) in [
            (0, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
