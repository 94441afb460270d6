//! Programs run to their end, and what they took.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::place::take_memory;

/// Often enough to see most of a peak.
const SAMPLE: Duration = Duration::from_millis(5);
/// Linux tells times in hundredths of a second (proc_pid_stat(5), USER_HZ).
const TICKS: f64 = 100.0;

/// What one pull took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Seconds of CPU, user and system.
    pub(crate) cpu: f64,
    /// Peak resident memory.
    pub(crate) mib: f64,
}

impl Cost {
    /// The use of two programs that ran one after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            wall: self.wall + next.wall,
            cpu: self.cpu + next.cpu,
            mib: self.mib.max(next.mib),
        }
    }
}

/// Runs a program whose cost counts: the memory that it fills is at hand.
pub(crate) fn measure(command: Command, daemon: Option<u32>, fills: u64) -> Result<(Cost, String)> {
    take_memory(fills)?;
    run(command, daemon)
}

/// Runs a program; a daemon that works for it is counted with it.
pub(crate) fn run(mut command: Command, daemon: Option<u32>) -> Result<(Cost, String)> {
    let shown = format!("{command:?}");
    let spent = || -> Result<f64> {
        let of_daemon = daemon.map_or(Ok(0.0), |pid| ticks(&pid.to_string(), &[13, 14, 15, 16]));
        Ok(of_daemon? + ticks("self", &[15, 16])?)
    };
    let before = spent()?;
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    let watched = [Some(child.id()), daemon];
    let mut peak = 0.0;
    let output = thread::scope(|scope| {
        let mut stdout = child.stdout.take().context("a pipe")?;
        let reader = scope.spawn(move || std::io::read_to_string(&mut stdout));
        loop {
            if child.try_wait()?.is_some() {
                break;
            }
            let now: f64 = watched.iter().flatten().map(|pid| resident(*pid)).sum();
            peak = now.max(peak);
            thread::sleep(SAMPLE);
        }
        let text = reader.join().ok().context("reading its output")?;
        text.context("reading its output")
    })?;
    let wall = begin.elapsed().as_secs_f64();
    ensure!(child.wait()?.success(), "{shown} failed");
    let cost = Cost {
        wall,
        cpu: spent()? - before,
        mib: peak,
    };
    Ok((cost, output))
}

/// The sum of some fields of `/proc/PID/stat`, counted from 0, in seconds.
fn ticks(pid: &str, fields: &[usize]) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may hold spaces.
    let (_, rest) = text.rsplit_once(')').context("a process has a stat")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let values = fields
        .iter()
        .map(|field| words.get(field - 2)?.parse().ok());
    let values: Option<Vec<f64>> = values.collect();
    let values = values.context("a stat has times")?;
    Ok(values.iter().sum::<f64>() / TICKS)
}

/// MiB; of a program that has just ended, none.
fn resident(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kib(&text, "VmRSS:") / 1024.0
}

/// A field of `/proc/PID/status`, in KiB.
pub(crate) fn kib(status: &str, name: &str) -> f64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_computes_costs_cpu_and_one_that_fails_is_an_error() {
        let mut busy = Command::new("sh");
        busy.args([
            "-c",
            "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done",
        ]);
        let (cost, output) = run(busy, None).unwrap();
        assert_eq!(output, "done\n");
        assert!(
            cost.cpu > 0.0 && cost.wall > 0.0 && cost.mib > 0.0,
            "{cost:?}"
        );
        assert!(run(Command::new("false"), None).is_err());
    }
}
