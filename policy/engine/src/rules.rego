# What a guest with a policy document checks before it does what the host asks.
#
# One rule for each request, by the name of its message. A request that has no rule here is
# denied, and so is one whose rule is not true. Each name in a rule is a fact about the request,
# the document and what the pod did so far; the functions that find it are in
# policy/engine/src/facts/, and docs/policy.md says what each one means. A fact that does not
# hold is denied with the code that the function gives, the first one first.
#
# Documents name these rules, and the version of the functions, by digest.

package rules

import rego.v1

# ---- the pod

CreateSandboxRequest if {
	input.pod_is_new
	input.shared_memory
}

DestroySandboxRequest := true

# ---- containers

# The image, before a byte of it is fetched, and what is made before it is known.
CreateContainerRequest if {
	input.pod_runs
	input.pod_names
	input.id_is_new
	input.container_is_declared
	input.container_comes_now
	input.image
	input.sysctls
	input.volumes
	input.processes
}

# The process, when the verified image has said who its user is.
ContainerProcess if {
	input.arguments
	input.directory
	input.terminal
	input.environment
	input.user
	input.capabilities
	input.new_privileges
	input.seccomp
	input.kernel_paths
	input.limits
	input.root
	input.mounts
	input.settings
}

# Files of the host, when a container is about to see them.
ContainerFiles if input.files

StartContainerRequest if {
	input.container_is_there
	input.container_waits
}

RemoveContainerRequest if input.container_is_there

# Limits are all that there is to change.
UpdateContainerRequest if input.container_is_there

StatsContainerRequest if {
	input.container_is_there
	input.statistics
}

GetDiagnosticDataRequest if {
	input.container_is_there
	input.termination_message
}

# ---- processes

ExecProcessRequest if {
	input.container_is_there
	input.exec_arguments
	input.directory
	input.exec_environment
	input.exec_user
	input.exec_privileges
}

SignalProcessRequest if {
	input.container_is_there
	input.signal
}

WaitProcessRequest := true

WriteStreamRequest if {
	input.container_is_there
	input.stdin
}

CloseStdinRequest if input.container_is_there

ReadStreamRequest if {
	input.container_is_there
	input.logs
}

TtyWinResizeRequest if input.container_is_there

# ---- files and network

CopyFileRequest if {
	input.pod_runs
	input.copy_target
}

UpdateInterfaceRequest if input.no_loopback

UpdateRoutesRequest if {
	input.no_loopback
	input.interfaces
}

AddARPNeighborsRequest if {
	input.no_loopback
	input.interfaces
}

# ---- the guest

GuestDetailsRequest := true

GetOOMEventRequest := true

# All of it is there from the start.
OnlineCPUMemRequest := true
