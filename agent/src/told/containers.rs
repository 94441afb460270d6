//! Containers, their processes, streams and volumes.

use agent_containers::{
    ContainerError, CopyError, CreateError, ExecError, LookupError, PauseError, RemoveError,
    StorageError, StreamError, SysctlError, Use, UserError, VolumeError,
    job::{JobError, Refusal},
    namespaces::NamespaceError,
};

use crate::told::{
    disk,
    field::{Field, FromHost},
    images,
    measured::note,
    text::Told,
};

/// A request that names something that is not there.
pub(crate) fn lookup(error: &LookupError) -> Told {
    match error {
        LookupError::Container(id) => {
            // These words tell the shims of Kata that the container is gone.
            Told::new("Invalid container id {container}: the pod has no such container")
                .with(Field::container(id))
        }
        LookupError::Process(id) => Told::new("process {exec} has ended").with(Field::exec(id)),
    }
}

/// A container that was not made or started.
pub(crate) fn create(error: &CreateError) -> Told {
    match error {
        CreateError::Exists(id) => {
            Told::new("container {container} is there already").with(Field::container(id))
        }
        CreateError::TooMany => Told::new("the pod has too many containers already"),
        CreateError::Lookup(error) => lookup(error),
        CreateError::Started(id) => {
            Told::new("container {container} was started before").with(Field::container(id))
        }
        CreateError::Storage(error) => storage(error),
        CreateError::Root(error) => images::root(error),
        CreateError::User(error) => user(error),
        CreateError::Sysctl(error) => sysctl(error),
        CreateError::Pause(error) => pause(error),
        CreateError::Prepare {
            what,
            container,
            source,
        } => Told::new("cannot make {what} of container {container}")
            .with(Field::what(what))
            .with(Field::container(container))
            .errno(source),
        CreateError::NotGranted(refused) => not_granted(refused),
        CreateError::Source {
            destination,
            source,
        } => Told::new("cannot open the source of the mount at {sent}")
            .with(Field::sent(FromHost(&destination.to_string_lossy())))
            .errno(source),
        CreateError::Workload(_) => Told::new("the container cannot be told in the log"),
        CreateError::Log(error) => {
            Told::new("the container cannot be measured").because(note(error))
        }
        CreateError::Job {
            action,
            container,
            executable,
            source,
        } => Told::new("cannot {step} container {container}")
            .with(Field::step(action))
            .with(Field::container(container))
            .because(job(source, executable)),
        CreateError::Denied(denied) => crate::told::denial(denied),
        CreateError::Worker(_) => Told::new("a worker thread of the agent failed"),
    }
}

fn not_granted(refused: &Use) -> Told {
    match refused {
        Use::HostFiles(path) => {
            Told::new("files of the host would cover {sent} of the image, which is not granted")
                .with(Field::sent(FromHost(&path.to_string_lossy())))
        }
        Use::Capability(name) => {
            Told::new("capability '{sent}' is not given to containers: remove it")
                .with(Field::sent(FromHost(name)))
        }
    }
}

fn sysctl(error: &SysctlError) -> Told {
    match error {
        SysctlError::Set { key, source } => Told::new("sysctl '{sent}' cannot be set")
            .with(Field::sent(FromHost(key)))
            .errno(source),
        SysctlError::Enter(source) => {
            Told::new("cannot enter the pod's IPC namespace").errno(source)
        }
    }
}

fn pause(error: &PauseError) -> Told {
    match error {
        PauseError::Second => Told::new("the pod has its pause container already"),
        PauseError::None => {
            Told::new("the pod's processes cannot be shared: it has no pause container yet")
        }
        PauseError::Ended => {
            Told::new("the processes of a container that has ended cannot be shared")
        }
        PauseError::Namespace(source) => {
            Told::new("cannot hold the pod's process namespace").errno(source)
        }
    }
}

/// A process that was not started.
pub(crate) fn exec(error: &ExecError) -> Told {
    match error {
        ExecError::Lookup(error) => lookup(error),
        ExecError::NotRunning(id) => {
            Told::new("container {container} is not running").with(Field::container(id))
        }
        ExecError::Pause(id) => {
            Told::new("no process can be started in the pause container {container}")
                .with(Field::container(id))
        }
        ExecError::Exists { container, exec } => {
            Told::new("container {container} has a process {exec} already")
                .with(Field::container(container))
                .with(Field::exec(exec))
        }
        ExecError::TooMany(id) => Told::new("container {container} has too many processes already")
            .with(Field::container(id)),
        ExecError::User(error) => user(error),
        ExecError::Workload(_) => Told::new("the process cannot be told in the log"),
        ExecError::Log(error) => Told::new("the process cannot be measured").because(note(error)),
        ExecError::Prepare { container, source } => {
            Told::new("cannot prepare a process in container {container}")
                .with(Field::container(container))
                .errno(source)
        }
        ExecError::Job {
            container,
            executable,
            source,
        } => Told::new("cannot start a process in container {container}")
            .with(Field::container(container))
            .because(job(source, executable)),
    }
}

fn user(error: &UserError) -> Told {
    match error {
        UserError::Unknown(name) => {
            Told::new("user \"{user}\" is not in the image's /etc/passwd and /etc/group")
                .with(Field::user(FromHost(name)))
        }
        UserError::Read { file, source } => Told::new("the image's {what} cannot be read")
            .with(Field::what(file))
            .errno(source),
    }
}

fn job(error: &JobError, executable: &str) -> Told {
    match error {
        JobError::Spawn(error) => Told::new("cannot start the container helper").errno(error),
        JobError::Talk(error) => Told::new("cannot talk to the container helper").errno(error),
        JobError::Died => Told::new("container helper ended early"),
        JobError::Slow => Told::new("container helper took too long"),
        JobError::Answer(_) => Told::new("container helper's answer cannot be read"),
        JobError::Program(error) => Told::new("executable '{executable}' cannot be run")
            .with(Field::executable(FromHost(executable)))
            .errno(error),
        JobError::Refused { refusal, .. } => {
            self::refusal(*refusal).with(Field::executable(FromHost(executable)))
        }
    }
}

fn refusal(refusal: Refusal) -> Told {
    match refusal {
        Refusal::NoExecutable => Told::new("executable '{executable}' missing in $PATH"),
        Refusal::NotExecutable => Told::new("executable '{executable}' may not be executed"),
        Refusal::NoPath => Told::new("PATH is not set, so '{executable}' is looked for nowhere"),
        Refusal::WorkingDirectory => {
            Told::new("the working directory of '{executable}' cannot be entered")
        }
        Refusal::Mount => Told::new("a mount cannot be made for '{executable}'"),
        Refusal::Other => Told::new("the kernel or the container library refused '{executable}'"),
    }
}

/// A container that was not removed.
pub(crate) fn remove(error: &RemoveError) -> Told {
    match error {
        RemoveError::Lookup(error) => lookup(error),
        RemoveError::Stuck(id) => {
            Told::new("processes of container {container} do not end although they were killed")
                .with(Field::container(id))
        }
    }
}

/// A container that was not changed or read.
pub(crate) fn container(error: &ContainerError) -> Told {
    match error {
        ContainerError::Lookup(error) => lookup(error),
        ContainerError::Kernel {
            action,
            container,
            source,
        } => Told::new("cannot {step} container {container}")
            .with(Field::step(action))
            .with(Field::container(container))
            .errno(source),
    }
}

/// A stream that was not used.
pub(crate) fn stream(error: &StreamError) -> Told {
    match error {
        StreamError::Closed => Told::new("standard input is closed"),
        StreamError::NoTerminal => Told::new("process has no terminal"),
        StreamError::Kernel(error) => Told::new("stream cannot be used").errno(error),
    }
}

/// A volume that cannot be had.
pub(crate) fn storage(error: &StorageError) -> Told {
    let told = Told::new("cannot make volume {path}").with(Field::path(&error.mount_point));
    match &error.source {
        VolumeError::Scratch(error) => told.because(disk::scratch(error)),
        VolumeError::Kernel(error) => told.errno(error),
        VolumeError::TooMany => told.because(Told::new("the pod has too many volumes already")),
        VolumeError::Nested(other) => told.because(
            Told::new("it lies in volume {path}, or that one in it").with(Field::path(other)),
        ),
    }
}

/// A file that was not put in place.
pub(crate) fn copy_file(error: &CopyError) -> Told {
    Told::new("cannot {step} {path}")
        .with(Field::step(error.step))
        .with(Field::path(&error.path))
        .errno(&error.source)
}

/// Namespaces that cannot be made.
pub(crate) fn namespaces(error: &NamespaceError) -> Told {
    Told::new("cannot {step}")
        .with(Field::step(error.step))
        .errno(&error.source)
}
