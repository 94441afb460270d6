//! What has to come of each pod, as its YAML says.

/// How a container goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It runs until it is stopped.
    Runs,
    /// It ends by itself, with this exit code.
    Exits(i32),
}

/// What has to come of one container.
#[derive(Debug, Clone, Copy)]
pub struct Container {
    /// Its name.
    pub name: &'static str,
    /// How it goes on.
    pub end: End,
    /// A part of what it prints.
    pub says: &'static str,
}

/// What has to come of one pod.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The name of its file.
    pub pod: &'static str,
    /// All its containers.
    pub containers: &'static [Container],
}

const fn runs(name: &'static str, says: &'static str) -> Container {
    let end = End::Runs;
    Container { name, end, says }
}

const fn exits(name: &'static str, code: i32, says: &'static str) -> Container {
    let end = End::Exits(code);
    Container { name, end, says }
}

const fn pod(pod: &'static str, containers: &'static [Container]) -> Expected {
    Expected { pod, containers }
}

/// Every pod of `tests/pods`.
pub const EXPECTED: [Expected; 27] = [
    pod(
        "ten-containers",
        &[
            exits("worker-0", 0, ""),
            runs("worker-1", ""),
            runs("worker-2", ""),
            runs("worker-3", ""),
            runs("worker-4", ""),
            runs("worker-5", ""),
            runs("worker-6", ""),
            runs("worker-7", ""),
            runs("worker-8", ""),
            runs("worker-9", ""),
        ],
    ),
    pod("host-path", &[exits("main", 0, "Africa")]),
    pod(
        "config-sub-path",
        &[runs("app", "port = 8080\ndebug = false")],
    ),
    pod("cron-job", &[exits("report", 0, "this week: reporting")]),
    pod("daemon-set", &[runs("agent", "agent in /srv")]),
    pod("downward", &[exits("main", 0, "MEMORY=64\n")]),
    pod("empty-dirs", &[runs("main", "")]),
    pod("env-from", &[exits("main", 0, "debug")]),
    pod(
        "image-user",
        &[
            runs("named", "uid=1001(app) gid=1002(app)"),
            exits("numbered", 0, "uid=3000(one) gid=3000"),
            runs("grouped", "uid=1001(app) gid=7"),
        ],
    ),
    pod("indexed-job", &[exits("shard", 0, "part 0 of 4")]),
    pod(
        "init",
        &[exits("fetch", 0, ""), runs("web", "nginx 1.27.5")],
    ),
    pod("job", &[exits("pi", 0, "3.14159")]),
    pod("nginx", &[runs("nginx", "nginx 1.27.5")]),
    pod(
        "postgres",
        &[runs(
            "postgres",
            "postgres://app:not-a-good-one@localhost/app",
        )],
    ),
    pod("privileged", &[runs("main", "")]),
    pod("probes-and-hooks", &[runs("main", "")]),
    pod("projected-tokens", &[runs("client", "")]),
    pod("redis", &[runs("redis", "(--maxmemory 64mb --save )")]),
    pod("replica-set", &[runs("php-redis", "hosts from dns")]),
    pod("replication-controller", &[runs("old", "nginx 1.27.5")]),
    pod("secret-files", &[runs("web", "nginx 1.27.5")]),
    pod("security", &[runs("app", "")]),
    pod(
        "shared-processes",
        &[runs("web", "nginx 1.27.5"), runs("shell", "")],
    ),
    pod("sidecar", &[runs("shipper", "UTC 20"), runs("app", "")]),
    pod("templates", &[runs("one", ""), runs("two", "")]),
    pod("termination", &[exits("main", 3, "")]),
    pod("workload-identity", &[runs("main", "")]),
];
