//! CPU and memory, as the kubelet computes them for the kernel.

use k8s_cri::v1::LinuxContainerResources;
use policy_generator::Quantity;

use crate::pod::{Container, Pod, Resources};

/// The period over which a quota of CPU time counts, in µs; the kubelet's.
const CPU_PERIOD: i64 = 100_000;

/// The kernel takes no smaller quota, in µs.
const LEAST_CPU_QUOTA: i64 = 1000;

/// The kernel takes no fewer shares.
const LEAST_CPU_SHARES: i64 = 2;

/// CPU in thousandths and memory in bytes; `None` where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts {
    cpu_limit: Option<i64>,
    cpu_request: Option<i64>,
    memory_limit: Option<i64>,
}

impl Amounts {
    fn of(resources: &Resources) -> Self {
        let limit = |name: &str| resources.limits.get(name).copied();
        let request = |name: &str| resources.requests.get(name).copied().or(limit(name));
        Self {
            cpu_limit: limit("cpu").map(Quantity::milli),
            cpu_request: request("cpu").map(Quantity::milli),
            memory_limit: limit("memory").map(Quantity::units),
        }
    }

    fn merge(self, other: Self, with: fn(i64, i64) -> i64) -> Self {
        let both = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(with(a.unwrap_or(0), b.unwrap_or(0))),
        };
        Self {
            cpu_limit: both(self.cpu_limit, other.cpu_limit),
            cpu_request: both(self.cpu_request, other.cpu_request),
            memory_limit: both(self.memory_limit, other.memory_limit),
        }
    }

    fn cri(self) -> LinuxContainerResources {
        let quota = |milli: i64| (milli.saturating_mul(CPU_PERIOD) / 1000).max(LEAST_CPU_QUOTA);
        let shares = |milli: i64| (milli.saturating_mul(1024) / 1000).max(LEAST_CPU_SHARES);
        LinuxContainerResources {
            cpu_period: CPU_PERIOD,
            cpu_quota: self.cpu_limit.filter(|l| *l > 0).map_or(0, quota),
            cpu_shares: self.cpu_request.map_or(LEAST_CPU_SHARES, shares),
            memory_limit_in_bytes: self.memory_limit.unwrap_or(0),
            ..LinuxContainerResources::default()
        }
    }
}

/// What one container may use.
pub(crate) fn container_resources(resources: &Resources) -> LinuxContainerResources {
    Amounts::of(resources).cri()
}

/// The sum of the containers, or the largest init container if that is more.
pub(crate) fn pod_resources(pod: &Pod) -> LinuxContainerResources {
    let all = |containers: &[Container], with| {
        containers
            .iter()
            .map(|c| Amounts::of(&c.resources))
            .fold(Amounts::default(), |sum, one| sum.merge(one, with))
    };
    let running = all(&pod.spec.containers, i64::saturating_add);
    let starting = all(&pod.spec.init_containers, i64::max);
    running.merge(starting, i64::max).cri()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_become_shares_quotas_and_bytes() {
        let cases = [
            ("{}", (0, 2, 0)),
            (
                r#"{"limits":{"cpu":"1500m","memory":"64Mi"}}"#,
                (150_000, 1536, 67_108_864),
            ),
            (
                r#"{"requests":{"cpu":"250m"},"limits":{"cpu":2}}"#,
                (200_000, 256, 0),
            ),
            (r#"{"limits":{"cpu":"1m"}}"#, (1000, 2, 0)),
            (r#"{"requests":{"memory":"1Gi"}}"#, (0, 2, 0)),
        ];
        for (resources, expected) in cases {
            let cri = container_resources(&serde_json::from_str(resources).unwrap());
            let found = (cri.cpu_quota, cri.cpu_shares, cri.memory_limit_in_bytes);
            assert_eq!(found, expected, "{resources}");
            assert_eq!(cri.cpu_period, 100_000);
        }
    }
}
