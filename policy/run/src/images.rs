//! The images of a pod, made known to the runtime before its sandbox starts.
//!
//! For a VM's containers the runtime gets no layers (the snapshotter sees to that):
//! what it learns is that an image exists and what its configuration says.

use crate::{
    RunError,
    config::Setting,
    credentials::Credentials,
    cri::Cri,
    pod::{Container, PullPolicy},
    progress::Progress,
};

/// Has the runtime know all images of the pod; it gets no layers of those for a VM.
pub(crate) async fn pull_all(
    cri: &mut Cri,
    setting: &Setting<'_>,
    credentials: &Credentials,
    progress: &Progress,
) -> Result<(), RunError> {
    let spec = &setting.pod.spec;
    let pod_security = &spec.security_context;
    let mut pulled: Vec<&str> = Vec::new();
    for container in spec.init_containers.iter().chain(&spec.containers) {
        let image = setting.image(container);
        let name = container.image.as_str();
        let policy = container.image_pull_policy.unwrap_or(default_policy(name));
        let present = cri.image_status(&image).await?;
        match (policy, present.is_some() || pulled.contains(&name)) {
            (PullPolicy::Never, false) => return Err(RunError::NotPulled(name.to_owned())),
            (PullPolicy::IfNotPresent | PullPolicy::Never, true) => {}
            (PullPolicy::Always, _) if pulled.contains(&name) => {}
            _ => {
                progress.step(&format!("asking for image {name}"));
                cri.pull(&image, credentials.of(name), &setting.sandbox())
                    .await?;
            }
        }
        pulled.push(name);
        let own = &container.security_context;
        let non_root = own.run_as_non_root.or(pod_security.run_as_non_root);
        if non_root == Some(true) {
            let user = own.run_as_user.or(pod_security.run_as_user);
            check_not_root(cri, setting, container, user).await?;
        }
    }
    Ok(())
}

/// `runAsNonRoot`, as the kubelet checks it: a name proves nothing.
async fn check_not_root(
    cri: &mut Cri,
    setting: &Setting<'_>,
    container: &Container,
    user: Option<i64>,
) -> Result<(), RunError> {
    let user = match user {
        Some(user) => user.to_string(),
        None => {
            let image = cri.image_status(&setting.image(container)).await?;
            let image = image.unwrap_or_default();
            match image.uid {
                Some(uid) => uid.value.to_string(),
                None if image.username.is_empty() => "0".to_owned(),
                None => image.username,
            }
        }
    };
    match user.parse::<i64>() {
        Ok(uid) if uid != 0 => Ok(()),
        _ => Err(RunError::Root(container.name.clone(), user)),
    }
}

/// Kubernetes' default: a tag that moves is looked up each time.
fn default_policy(image: &str) -> PullPolicy {
    let last = image.rsplit('/').next().unwrap_or(image);
    if image.contains('@') || last.contains(':') && !last.ends_with(":latest") {
        PullPolicy::IfNotPresent
    } else {
        PullPolicy::Always
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_whose_tag_moves_are_pulled_each_time() {
        for (image, policy) in [
            ("busybox", PullPolicy::Always),
            ("busybox:latest", PullPolicy::Always),
            ("r.example:5000/busybox", PullPolicy::Always),
            ("busybox:1", PullPolicy::IfNotPresent),
            ("r.example:5000/a/b:1", PullPolicy::IfNotPresent),
            ("busybox@sha256:00", PullPolicy::IfNotPresent),
        ] {
            assert_eq!(default_policy(image), policy, "{image}");
        }
    }
}
