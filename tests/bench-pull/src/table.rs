//! From samples to lines with ratios and budgets.

use tests_harness::{Measurement, median};

use crate::{bench::Sample, images::Image, process::Cost};

/// CPU: ours ÷ the sum of the stages.
const STAGES: f64 = 1.5;
/// CPU: ours ÷ the better peer's.
const PEERS: f64 = 0.5;
/// CPU: an encrypted image ÷ the same in clear.
const ENCRYPTED: f64 = 1.1;
/// Wall: two CPUs ÷ one, with layers enough for both.
const SECOND_CPU: f64 = 0.6;
/// Wall of one layer ÷ what it cannot be faster than: four fifths of that speed.
const PIPELINE: f64 = 1.25;
/// System calls of each entry.
const CALLS: f64 = 8.0;
const MEMORY_MIB: f64 = 32.0;
/// Manifest and configuration, besides one for each layer.
const REQUESTS: usize = 2;

/// Rounds to three decimal places, because small images take milliseconds.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// All repetitions of one image.
pub(crate) struct Samples<'a> {
    pub(crate) image: &'a Image,
    pub(crate) samples: Vec<Sample>,
}

impl<'a> Samples<'a> {
    pub(crate) fn new(image: &'a Image) -> Self {
        Self {
            image,
            samples: Vec::new(),
        }
    }

    fn each(&self, of: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
        self.samples.iter().filter_map(of).collect()
    }

    /// The measurement of a value that is compared with nothing.
    fn value(
        &self,
        what: &str,
        unit: &'static str,
        budget: Option<f64>,
        of: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Measurement> {
        let mut values = self.each(of);
        let value = (!values.is_empty()).then(|| median(&mut values))?;
        Some(Measurement {
            name: format!("{}.{what}", self.image.name),
            value: rounded(value),
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            budget,
            within: budget.map(|budget| value <= budget),
            unjudged: None,
        })
    }

    /// A value beside another one of the same repetition.
    fn against(
        &self,
        what: &str,
        peer: &str,
        budget: Option<f64>,
        of: impl Fn(&Sample) -> Option<(f64, f64)>,
    ) -> Option<Measurement> {
        let name = format!("{}.{what}", self.image.name);
        compare(
            name,
            peer,
            budget,
            self.samples.iter().filter_map(of).collect(),
        )
    }
}

fn compare(
    name: String,
    peer: &str,
    budget: Option<f64>,
    pairs: Vec<(f64, f64)>,
) -> Option<Measurement> {
    if pairs.is_empty() {
        return None;
    }
    let middle = |of: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(of).collect();
        median(&mut values)
    };
    let ratio = middle(|(ours, theirs)| ours / theirs);
    Some(Measurement {
        name,
        value: rounded(middle(|pair| pair.0)),
        unit: "s",
        peer: Some(peer.to_owned()),
        peer_value: Some(rounded(middle(|pair| pair.1))),
        ratio: Some(rounded(ratio)),
        budget,
        within: budget.map(|budget| ratio <= budget),
        unjudged: None,
    })
}

/// All lines of all images; wall times are judged only where nobody else was in the way.
pub(crate) fn summarize(all: &[Samples<'_>], idle: bool) -> Vec<Measurement> {
    let mut lines = Vec::new();
    for one in all {
        lines.extend(of_image(one));
    }
    let walls = lines.iter_mut().filter(|line| line.name.ends_with("wall"));
    walls
        .filter(|_| !idle)
        .for_each(|line| line.leave_unjudged("others keep this machine busy"));
    lines
}

fn of_image(one: &Samples<'_>) -> Vec<Measurement> {
    let encrypted = one.image.encrypts.is_some();
    let cpu = |sample: &Sample| sample.ours.cpu;
    let sum = |sample: &Sample| {
        sample
            .stages
            .of(encrypted)
            .iter()
            .map(|one| one.1)
            .sum::<f64>()
    };
    let mut lines = vec![one.against("cpu", "stages", Some(STAGES), |s| Some((cpu(s), sum(s))))];
    lines.push(one.against("cpu", "in clear", Some(ENCRYPTED), |s| {
        Some((cpu(s), s.in_clear?.cpu))
    }));
    for (name, of) in [
        (
            "skopeo+umoci",
            (|s| s.skopeo) as fn(&Sample) -> Option<Cost>,
        ),
        ("ctr", |s| s.ctr),
    ] {
        lines.push(one.against("cpu", name, None, |s| Some((cpu(s), of(s)?.cpu))));
        lines.push(one.against("wall", name, None, |s| Some((s.ours.wall, of(s)?.wall))));
    }
    let better = |sample: &Sample| {
        let peers = [sample.skopeo, sample.ctr];
        let cpu = peers.iter().flatten().map(|peer| peer.cpu);
        cpu.reduce(f64::min)
    };
    lines.push(one.against("cpu", "better peer", Some(PEERS), |s| {
        Some((cpu(s), better(s)?))
    }));
    // Where this is no less than the budget above, that budget is out of reach.
    lines.push(one.against("stages", "better peer", None, |s| {
        Some((sum(s), better(s)?))
    }));
    lines.push(one.value("memory", "MiB", Some(MEMORY_MIB), |s| Some(s.ours.mib)));
    let requests = (one.image.layers + REQUESTS) as f64;
    lines.push(one.value("requests", "", Some(requests), |s| Some(s.requests as f64)));
    if one.image.layers > 1 {
        lines.push(one.against("wall", "1 CPU", Some(SECOND_CPU), |s| {
            Some((s.ours.wall, s.ours_on_one?.wall))
        }));
    } else if one.image.files == 0 {
        let slowest = |sample: &Sample| {
            let stages = sample.stages.of(encrypted).into_iter();
            stages.map(|one| one.1).reduce(f64::max)
        };
        lines.push(one.against("wall", "slowest stage", None, |s| {
            Some((s.ours.wall, slowest(s)?))
        }));
        // All stages take turns on two CPUs, so half of their sum bounds it, too.
        lines.push(
            one.against("wall", "stages on 2 CPUs", Some(PIPELINE), |s| {
                Some((s.ours.wall, slowest(s)?.max(sum(s) / 2.0)))
            }),
        );
    }
    let entries = one.image.entries() as f64;
    lines.push(one.value("calls_per_entry", "", Some(CALLS), |s| {
        Some(s.calls? / entries)
    }));
    for (name, of) in [
        (
            "skopeo+umoci",
            (|s| s.shaped_skopeo) as fn(&Sample) -> Option<Cost>,
        ),
        ("ctr", |s| s.shaped_ctr),
    ] {
        lines.push(one.against("shaped.wall", name, None, |s| {
            Some((s.shaped?.wall, of(s)?.wall))
        }));
    }
    lines.extend(stages(one, encrypted));
    lines.into_iter().flatten().collect()
}

/// Each stage alone.
fn stages(one: &Samples<'_>, encrypted: bool) -> Vec<Option<Measurement>> {
    let first = one.samples.first();
    let names = first.map_or_else(Vec::new, |sample| sample.stages.of(encrypted));
    let line = |(index, (name, _)): (usize, (&str, f64))| {
        one.value(&format!("stage.{name}"), "s", None, |sample| {
            Some(sample.stages.of(encrypted).get(index)?.1)
        })
    };
    names.into_iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{images, stages::Stages};

    fn sample(cpu: f64, wall: f64) -> Sample {
        Sample {
            ours: Cost {
                wall,
                cpu,
                mib: 33.0,
            },
            stages: Stages {
                inflate: 1.0,
                hash_stored: 1.0,
                ..Stages::default()
            },
            skopeo: Some(Cost {
                wall,
                cpu: 8.0,
                mib: 1.0,
            }),
            requests: 3,
            ..Sample::default()
        }
    }

    #[test]
    fn each_budget_is_judged_by_its_own_ratio() {
        let all = images::all(true);
        let image = |name: &str| all.iter().find(|image| image.name == name).unwrap();
        let mut one = Samples::new(image("one"));
        one.samples = vec![sample(2.0, 1.2), sample(4.0, 1.3), sample(2.0, 1.2)];
        let mut secret = Samples::new(image("one-encrypted"));
        let clear = |cpu| Some(sample(cpu, 1.0).ours);
        secret.samples = [(2.6, 2.0), (4.0, 4.0), (2.4, 2.0)]
            .map(|(cpu, in_clear)| Sample {
                in_clear: clear(in_clear),
                ..sample(cpu, 1.2)
            })
            .to_vec();
        let samples = [one, secret];
        let busy = summarize(&samples, false);
        let walls = busy.iter().filter(|line| line.name.ends_with("wall"));
        assert!(walls.map(|line| line.within).all(|within| within.is_none()));
        let mut figures = busy.iter().filter(|line| line.budget.is_some());
        assert!(figures.all(|line| line.within.is_some() || line.unjudged.is_some()));
        let lines = summarize(&samples, true);
        let line = |name: &str, peer: Option<&str>| {
            let found = lines
                .iter()
                .find(|line| line.name == name && line.peer.as_deref() == peer);
            found
                .map(|line| (line.ratio.unwrap_or(line.value), line.within))
                .unwrap()
        };
        assert_eq!(line("one.cpu", Some("stages")), (1.0, Some(true)));
        assert_eq!(line("one.cpu", Some("better peer")), (0.25, Some(true)));
        assert_eq!(line("one.stages", Some("better peer")), (0.25, None));
        assert_eq!(line("one.wall", Some("slowest stage")), (1.2, None));
        let bound = Some("stages on 2 CPUs");
        assert_eq!(line("one.wall", bound), (1.2, Some(true)));
        assert_eq!(line("one.memory", None), (33.0, Some(false)));
        assert_eq!(line("one.requests", None), (3.0, Some(true)));
        assert_eq!(
            line("one-encrypted.cpu", Some("in clear")),
            (1.2, Some(false))
        );
    }
}
