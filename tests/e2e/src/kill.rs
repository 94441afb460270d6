//! The shim or QEMU dies by SIGKILL at each step of a pod's life: containerd's cleanup leaves nothing.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use tests_harness::{ContainerRequest, Leftovers, Pod, Process, wait_until};

use crate::Stage;

const SHIM: &str = "containerd-shim-kata-cc-v2";
const QEMU: &str = "qemu-system-x86_64";
const STEP: Duration = Duration::from_secs(60);
/// Long enough for a request to have reached the guest.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// A node before the pod whose shim or QEMU is to be killed.
struct Scene {
    stage: &'static Stage,
    program: &'static str,
    before: Leftovers,
    processes: Vec<Process>,
}

impl Scene {
    /// Waits until a process of `program` runs that did not before.
    fn appears(&self, program: &str) -> Result<Process> {
        let mut found = None;
        wait_until(&format!("{program} runs"), STEP, || {
            let now = self.stage.bed().node().processes()?;
            found = now
                .into_iter()
                .find(|one| one.is(program) && !self.processes.contains(one));
            Ok(found.is_some())
        })?;
        found.context("it has just been found")
    }

    fn kill(&self) -> Result<()> {
        let victim = self.appears(self.program)?;
        self.stage.bed().node().kill(&victim)
    }

    /// As kubelet does, which asks again: until containerd has noticed that the shim is gone, it
    /// may still ask it and fail.
    fn remove(&self, pod: Pod<'_>) -> Result<()> {
        let mut cri = self.stage.bed().cri()?;
        wait_until("the pod can be removed", STEP, || {
            Ok(cri.remove_sandbox(pod.id()).is_ok())
        })?;
        pod.remove()
    }

    /// Everything the bed holds is what it held before, and the bed still runs pods.
    fn is_clean(&self) -> Result<()> {
        let mut cri = self.stage.bed().cri()?;
        for sandbox in cri.sandboxes()? {
            if !self.stage.is_shared(&sandbox) {
                cri.remove_sandbox(&sandbox)?;
            }
        }
        self.before
            .wait_until_gone(self.stage.bed().node(), Duration::from_secs(30))
    }
}

/// Plays a step in which a program is killed.
fn play(
    stage: &'static Stage,
    program: &'static str,
    step: fn(&Scene) -> Result<()>,
) -> Result<()> {
    let _turn = stage.alone();
    if !stage.has_vms() {
        return Ok(());
    }
    let scene = Scene {
        stage,
        program,
        before: stage.before()?,
        processes: stage.bed().node().processes()?,
    };
    step(&scene)?;
    scene.is_clean()
}

fn joined<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("the thread panicked"))
}

fn while_booting(scene: &Scene) -> Result<()> {
    let stage = scene.stage;
    let running = thread::spawn(move || stage.pod().map(drop));
    // The shim is only worth killing once it has something to lose.
    scene.appears(QEMU)?;
    scene.kill()?;
    let program = scene.program;
    ensure!(joined(running)?.is_err(), "a pod ran without its {program}");
    Ok(())
}

fn while_pulling(scene: &Scene) -> Result<()> {
    let bed = scene.stage.bed();
    let pod = scene.stage.pod()?;
    let container = pod.create(ContainerRequest::busybox(&["sleep", "1000"]))?;
    let asked = || -> Result<usize> {
        let log = bed.registry().log(bed.node())?;
        Ok(log.0.iter().filter(|one| one.is_from_pod()).count())
    };
    let asked_before = asked()?;
    let (mut cri, id) = (container.cri(), container.id().to_owned());
    let starting = thread::spawn(move || cri.start_container(&id));
    wait_until("the guest asks the registry", STEP, || {
        Ok(asked()? > asked_before)
    })?;
    scene.kill()?;
    let program = scene.program;
    ensure!(
        joined(starting)?.is_err(),
        "a container started without its {program}"
    );
    scene.remove(pod)
}

fn while_running(scene: &Scene) -> Result<()> {
    let pod = scene.stage.pod()?;
    let container = pod.start(ContainerRequest::busybox(&["sleep", "1000"]))?;
    scene.kill()?;
    let exit = container.wait()?;
    let program = scene.program;
    ensure!(
        exit.code != 0,
        "a container whose {program} was killed ended well: {exit:?}"
    );
    wait_until("the sandbox is reported as gone", STEP, || {
        Ok(!pod.is_ready()?)
    })?;
    pod.remove()
}

fn while_stopping(scene: &Scene) -> Result<()> {
    let pod = scene.stage.pod()?;
    let container = pod.start(ContainerRequest::shell(
        "trap 'echo stopping' TERM; echo ready; while :; do sleep 0.1; done",
    ))?;
    container.wait_for_output("ready")?;
    let (mut cri, id) = (container.cri(), container.id().to_owned());
    let stopping = thread::spawn(move || cri.stop_container(&id, 30));
    container.wait_for_output("stopping")?;
    scene.kill()?;
    // Whether that call succeeds is containerd's business; the container must be seen to end.
    let _ = joined(stopping)?;
    container.wait()?;
    pod.remove()
}

fn while_executing(scene: &Scene) -> Result<()> {
    let pod = scene.stage.pod()?;
    let container = pod.start(ContainerRequest::busybox(&["sleep", "1000"]))?;
    let (mut cri, id) = (container.cri(), container.id().to_owned());
    let executing = thread::spawn(move || {
        let script = "echo executing > /proc/1/fd/1; sleep 1000";
        cri.exec_sync(&id, &["/bin/sh", "-c", script])
    });
    container.wait_for_output("executing")?;
    scene.kill()?;
    let answer = joined(executing)?;
    let program = scene.program;
    ensure!(
        !answer.as_ref().is_ok_and(|answer| answer.exit_code == 0),
        "an exec whose {program} was killed ended well: {answer:?}"
    );
    container.wait()?;
    pod.remove()
}

fn while_removing(scene: &Scene) -> Result<()> {
    let node = scene.stage.bed().node();
    let pod = scene.stage.pod()?;
    let container = pod.start(ContainerRequest::busybox(&["true"]))?;
    container.wait()?;
    let victim = scene.appears(scene.program)?;
    // A guest that answers no more holds the removal where it is.
    node.freeze(&scene.appears(QEMU)?)?;
    let (mut cri, id) = (container.cri(), pod.id().to_owned());
    let removing = thread::spawn(move || cri.remove_sandbox(&id));
    thread::sleep(UNDER_WAY);
    node.kill(&victim)?;
    // Whether that call succeeds is containerd's business.
    let _ = joined(removing)?;
    scene.remove(pod)
}

macro_rules! killed {
    ($($(#[$doc:meta])* $name:ident: $step:ident($program:expr);)+) => {
        $($(#[$doc])*
        pub fn $name(stage: &'static Stage) -> Result<()> {
            play(stage, $program, $step)
        })+
    };
}

killed! {
    /// The VM has been started, the agent has not answered.
    nothing_is_left_when_the_shim_is_killed_while_the_vm_boots: while_booting(SHIM);
    /// The VM has been started, the agent has not answered.
    nothing_is_left_when_qemu_is_killed_while_the_vm_boots: while_booting(QEMU);
    /// CreateContainer is waiting for the guest.
    nothing_is_left_when_the_shim_is_killed_while_an_image_is_pulled: while_pulling(SHIM);
    /// CreateContainer is waiting for the guest.
    nothing_is_left_when_qemu_is_killed_while_an_image_is_pulled: while_pulling(QEMU);
    /// A container runs.
    nothing_is_left_when_the_shim_of_a_running_pod_is_killed: while_running(SHIM);
    /// A container runs.
    nothing_is_left_when_qemu_of_a_running_pod_is_killed: while_running(QEMU);
    /// A container has got SIGTERM and takes its time.
    nothing_is_left_when_the_shim_is_killed_while_the_pod_stops: while_stopping(SHIM);
    /// A container has got SIGTERM and takes its time.
    nothing_is_left_when_qemu_is_killed_while_the_pod_stops: while_stopping(QEMU);
    /// A process runs beside the container's own.
    nothing_is_left_when_the_shim_is_killed_during_an_exec: while_executing(SHIM);
    /// A process runs beside the container's own.
    nothing_is_left_when_qemu_is_killed_during_an_exec: while_executing(QEMU);
    /// The guest has been asked to end and has not answered.
    nothing_is_left_when_the_shim_is_killed_while_the_pod_is_removed: while_removing(SHIM);
    /// The guest has been asked to end and has not answered.
    nothing_is_left_when_qemu_is_killed_while_the_pod_is_removed: while_removing(QEMU);
}
