//! Addresses of the bed: one for the registry, one subnet for pods.

use anyhow::Result;
use serde_json::json;

/// Where registry and other servers of the bed listen; pods reach it through their gateway.
pub(crate) const HOST: &str = "10.90.0.1";
/// The pods' subnet.
pub(crate) const PODS: &str = "10.88.0.0/16";

/// Brings up loopback, which also carries [`HOST`]; `ip` runs one `ip` command.
pub(crate) fn loopback_and_registry(ip: impl Fn(&[&str]) -> Result<()>) -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", "10.90.0.1/32", "dev", "lo"])
}

/// The CNI network list of the bed.
pub(crate) fn cni() -> String {
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "bed",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": PODS }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    list.to_string()
}
