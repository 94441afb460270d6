use super::*;
use crate::{documents::Documents, environment::Facts, volumes::Roots};

fn pod(spec: &str) -> Pod {
    let json = format!(
        r#"{{"metadata":{{"name":"p","labels":{{"app":"x"}},"annotations":{{"io.katacontainers.a":"b"}}}},"spec":{spec}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

fn setting(pod: &Pod) -> Setting<'_> {
    Setting {
        pod,
        uid: "u",
        handler: "kata-cc",
        files: Path::new("/files"),
        log_directory: Path::new("/logs"),
        node_dns: DnsConfig {
            servers: vec!["1.1.1.1".to_owned()],
            ..DnsConfig::default()
        },
    }
}

fn sandbox(spec: &str) -> PodSandboxConfig {
    setting(&pod(spec)).sandbox()
}

fn container(pod: &Pod, environment: &[(&str, &str)]) -> ContainerConfig {
    let directory = tempfile::tempdir().unwrap();
    let facts = Facts {
        pod,
        uid: "u",
        node: "n",
        addresses: &[],
    };
    let roots = Roots {
        files: directory.path(),
        empty: directory.path(),
    };
    let volumes = Volumes::make(roots, &facts, &Documents::default()).unwrap();
    let environment = environment.iter().map(|(key, value)| KeyValue {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    });
    let mut config = setting(pod).container(Making {
        container: &pod.spec.containers[0],
        attempt: 2,
        environment: environment.collect(),
        volumes: &volumes,
        files: KubeletFiles {
            hosts: "/files/etc-hosts".into(),
            termination: "/files/last".into(),
        },
    });
    for mount in &mut config.mounts {
        let root = directory.path().to_str().unwrap();
        mount.host_path = mount.host_path.replace(root, "");
    }
    config
}

fn security(pod_context: &str, context: &str) -> LinuxContainerSecurityContext {
    let pod = pod(&format!(
        r#"{{"securityContext":{pod_context},"containers":[{{"name":"c","securityContext":{context}}}]}}"#
    ));
    container(&pod, &[])
        .linux
        .unwrap()
        .security_context
        .unwrap()
}

#[test]
fn the_sandbox_says_what_the_kubelet_says() {
    let config = sandbox(
        r#"{"containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":8080,"protocol":"UDP"}]}]}"#,
    );
    let metadata = config.metadata.clone().unwrap();
    assert_eq!(
        (
            metadata.name.as_str(),
            metadata.namespace.as_str(),
            metadata.uid.as_str()
        ),
        ("p", "default", "u")
    );
    assert_eq!(
        (config.hostname.as_str(), config.log_directory.as_str()),
        ("p", "/logs")
    );
    assert_eq!(config.dns_config, None);
    assert_eq!(config.annotations["io.katacontainers.a"], "b");
    assert_eq!(config.annotations[HANDLER_ANNOTATION], "kata-cc");
    assert_eq!(config.labels["app"], "x");
    assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
    let port = &config.port_mappings[0];
    assert_eq!(
        (port.protocol, port.container_port, port.host_port),
        (1, 80, 8080)
    );
    let security = config.linux.unwrap().security_context.unwrap();
    let namespaces = security.namespace_options.unwrap();
    assert_eq!(namespaces.network(), NamespaceMode::Pod);
    assert_eq!(namespaces.pid(), NamespaceMode::Container);
}

#[test]
fn host_names_are_cut_where_a_name_can_end() {
    let long = format!("{}-{}", "a".repeat(62), "b");
    for (hostname, expected) in [("h", "h"), (long.as_str(), &"a".repeat(62))] {
        let config = sandbox(&format!(r#"{{"hostname":"{hostname}"}}"#));
        assert_eq!(config.hostname, expected);
    }
}

#[test]
fn name_servers_are_the_nodes_the_pods_or_both() {
    let own = r#""dnsConfig":{"nameservers":["9.9.9.9"],"searches":["s"],"options":[{"name":"ndots","value":"1"},{"name":"edns0"}]}"#;
    let servers = |spec: &str| sandbox(spec).dns_config.map(|d| d.servers);
    let strings = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    assert_eq!(servers("{}"), None);
    assert_eq!(
        servers(&format!("{{{own}}}")),
        strings(&["1.1.1.1", "9.9.9.9"])
    );
    assert_eq!(
        servers(&format!(r#"{{"dnsPolicy":"None",{own}}}"#)),
        strings(&["9.9.9.9"])
    );
    let options = sandbox(&format!("{{{own}}}")).dns_config.unwrap().options;
    assert_eq!(options, ["ndots:1", "edns0"]);
}

#[test]
fn the_container_says_what_the_kubelet_says() {
    let pod = pod(
        r#"{"containers":[{"name":"c","image":"i:1","command":["sh","-c"],"args":["echo $(A) $(B)"],"workingDir":"/w","tty":true,"stdin":true}]}"#,
    );
    let config = container(&pod, &[("A", "1")]);
    assert_eq!(config.image.clone().unwrap().image, "i:1");
    assert_eq!(config.image.unwrap().runtime_handler, "kata-cc");
    assert_eq!(config.command, ["sh", "-c"]);
    assert_eq!(config.args, ["echo 1 $(B)"]);
    assert_eq!(
        (config.working_dir.as_str(), config.log_path.as_str()),
        ("/w", "c/2.log")
    );
    assert!(config.tty && config.stdin && !config.stdin_once);
    assert_eq!(config.metadata.unwrap().attempt, 2);
    assert_eq!(config.labels["io.kubernetes.container.name"], "c");
    assert_eq!(config.envs.len(), 1);
}

#[test]
fn volumes_are_mounted_where_they_lie() {
    let pod = pod(
        r#"{"volumes":[{"name":"e","emptyDir":{}},{"name":"h","hostPath":{"path":"/etc"}},
            {"name":"d","downwardAPI":{"items":[{"path":"n","fieldRef":{"fieldPath":"metadata.name"}}]}}],
        "containers":[{"name":"c","volumeMounts":[
            {"name":"e","mountPath":"/e"},{"name":"h","mountPath":"/h","readOnly":true,"subPath":"ssl"},
            {"name":"d","mountPath":"/d"},{"name":"d","mountPath":"/f","subPath":"n"}]}]}"#,
    );
    let mounts = container(&pod, &[]).mounts;
    let seen: Vec<_> = mounts
        .iter()
        .map(|m| (m.container_path.as_str(), m.host_path.as_str(), m.readonly))
        .collect();
    let volumes = "/pods/u/volumes/kubernetes.io~";
    assert_eq!(
        seen[0],
        ("/e", format!("{volumes}empty-dir/e").as_str(), false)
    );
    assert_eq!(seen[1], ("/h", "/etc/ssl", true));
    assert_eq!(
        seen[2],
        ("/d", format!("{volumes}downward-api/d").as_str(), true)
    );
    let file = seen[3].1;
    assert!(
        file.contains("/..20") && file.ends_with("/n"),
        "the file, not the link: {file}"
    );
}

#[test]
fn what_every_container_has_follows_what_its_pod_mounts() {
    let places = |container_of: &str| -> Vec<String> {
        let pod = pod(&format!(
            r#"{{"volumes":[{{"name":"e","emptyDir":{{}}}}],"containers":[{{"name":"c",{container_of}}}]}}"#
        ));
        let mounts = container(&pod, &[]).mounts.into_iter();
        mounts.map(|mount| mount.container_path).collect()
    };
    assert_eq!(
        places(r#""volumeMounts":[{"name":"e","mountPath":"/e"}]"#),
        ["/e", "/etc/hosts", "/dev/termination-log"]
    );
    assert_eq!(
        places(
            r#""terminationMessagePath":"/last","volumeMounts":[{"name":"e","mountPath":"/etc/hosts"}]"#
        ),
        ["/etc/hosts", "/last"]
    );
}

#[test]
fn a_containers_own_security_wins_over_the_pods() {
    let ids = |security: &LinuxContainerSecurityContext| {
        let value = |id: &Option<Int64Value>| id.as_ref().map(|i| i.value);
        (value(&security.run_as_user), value(&security.run_as_group))
    };
    let pod = r#"{"runAsUser":1,"runAsGroup":2,"fsGroup":3,"supplementalGroups":[4]}"#;
    assert_eq!(ids(&security("{}", "{}")), (None, None));
    let inherited = security(pod, "{}");
    assert_eq!(ids(&inherited), (Some(1), Some(2)));
    assert_eq!(inherited.supplemental_groups, [4, 3]);
    assert_eq!(
        ids(&security(pod, r#"{"runAsUser":5}"#)),
        (Some(5), Some(2))
    );
}

#[test]
fn privileges_are_passed_as_they_are_written() {
    let plain = security("{}", "{}");
    assert!(!plain.privileged && !plain.no_new_privs && !plain.readonly_rootfs);
    assert!(plain.masked_paths.contains(&"/proc/kcore".to_owned()));
    assert!(plain.readonly_paths.contains(&"/proc/sys".to_owned()));
    assert_eq!(
        plain.seccomp.unwrap().profile_type(),
        CriProfileType::Unconfined
    );

    let privileged = security("{}", r#"{"privileged":true}"#);
    assert!(privileged.privileged && privileged.masked_paths.is_empty());

    let tight = security(
        "{}",
        r#"{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,
        "capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]},"seccompProfile":{"type":"RuntimeDefault"}}"#,
    );
    assert!(tight.no_new_privs && tight.readonly_rootfs);
    let capabilities = tight.capabilities.unwrap();
    assert_eq!(capabilities.add_capabilities, ["NET_ADMIN"]);
    assert_eq!(capabilities.drop_capabilities, ["ALL"]);
    assert_eq!(
        tight.seccomp.unwrap().profile_type(),
        CriProfileType::RuntimeDefault
    );
}

#[test]
fn the_sandbox_is_as_large_as_its_containers_or_its_largest_init() {
    let sized = |cpu: &str, memory: &str| {
        format!(r#"{{"name":"c","resources":{{"limits":{{"cpu":"{cpu}","memory":"{memory}"}}}}}}"#)
    };
    let (small, large) = (sized("500m", "64Mi"), sized("2", "100Mi"));
    let spec = format!(
        r#"{{"initContainers":[{large},{small}],"containers":[{small},{small},{{"name":"d"}}]}}"#
    );
    let resources = sandbox(&spec).linux.unwrap().resources.unwrap();
    assert_eq!(resources.cpu_quota, 200_000);
    assert_eq!(resources.memory_limit_in_bytes, 128 << 20);
}
