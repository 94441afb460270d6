# Rules in the form that Kata's generator writes, for the facts of Kata Containers 4.1: the
# names, the shapes, and what each rule looks at. The wording is our own. `policy_data` follows.

package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default AddARPNeighborsRequest := false
default AddSwapPathRequest := false
default AddSwapRequest := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default DestroySandboxRequest := true
default ExecProcessRequest := false
default GetDiagnosticDataRequest := false
default GetIPTablesRequest := false
default GetMetricsRequest := false
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default ListInterfacesRequest := false
default ListRoutesRequest := false
default MemAgentCompactConfig := false
default MemAgentMemcgConfig := false
default MemHotplugByProbeRequest := false
default OnlineCPUMemRequest := true
default PauseContainerRequest := false
default ReadStreamRequest := false
default RemoveContainerRequest := true
default RemoveStaleVirtiofsShareMountsRequest := true
default ReseedRandomDevRequest := false
default ResizeVolumeRequest := false
default ResumeContainerRequest := false
default SetGuestDateTimeRequest := false
default SetIPTablesRequest := false
default SetPolicyRequest := false
default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default TtyWinResizeRequest := true
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default VolumeStatsRequest := false
default WaitProcessRequest := true
default WriteStreamRequest := false

default AllowRequestsFailingPolicy := false

# ---- switches of the settings

CloseStdinRequest if policy_data.request_defaults.CloseStdinRequest

GetDiagnosticDataRequest if policy_data.request_defaults.GetDiagnosticDataRequest

ReadStreamRequest if policy_data.request_defaults.ReadStreamRequest

UpdateEphemeralMountsRequest if policy_data.request_defaults.UpdateEphemeralMountsRequest

WriteStreamRequest if policy_data.request_defaults.WriteStreamRequest

# ---- state

known(key) if data.pstate[key] == data.pstate[key]

pinned(key, value) := [] if {
	known(key)
	data.pstate[key] == value
}

pinned(key, value) := [{"op": "add", "path": concat("/", ["", "pstate", key]), "value": value}] if {
	not known(key)
}

RemoveContainerRequest := {"allowed": true, "ops": [op]} if {
	op := {"op": "remove", "path": concat("/", ["", "pstate", input.container_id])}
}

# ---- the pod

CreateSandboxRequest if {
	print("sandbox", input.sandbox_id)
	input.guest_hook_path == ""
	count(input.kernel_modules) == 0
	input.sandbox_pidns == false
	every storage in input.storages {
		some allowed in policy_data.sandbox.storages
		storage == allowed
	}
}

# ---- a container

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	spec := input.OCI
	plain_request
	plain_spec(spec)
	plain_linux(spec.Linux)
	fits := [found |
		some index
		entry := policy_data.containers[index]
		found := fit(index, entry, spec)
	]
	count(fits) > 0
	ops := fits[0]
}

plain_request if {
	count(input.shared_mounts) == 0
	is_null(input.string_user)
}

plain_spec(spec) if {
	is_null(spec.Hooks)
	is_null(spec.Solaris)
	is_null(spec.Windows)
	spec.Process.SelinuxLabel == ""
	spec.Process.User.Username == ""
}

plain_linux(linux) if {
	is_null(linux.IntelRdt)
	is_null(linux.Seccomp)
	is_null(linux.Resources.BlockIO)
	is_null(linux.Resources.Network)
	is_null(linux.Resources.Pids)
	count(linux.Resources.Devices) == 0
	count(linux.GIDMappings) == 0
	count(linux.UIDMappings) == 0
	linux.MountLabel == ""
	linux.RootfsPropagation == ""
}

# The changes of state with which an entry of the policy fits the request.
fit(index, entry, spec) := ops if {
	notes := spec.Annotations
	namespace := notes["io.kubernetes.cri.sandbox-namespace"]
	name := notes["io.kubernetes.cri.sandbox-name"]
	namespace_fits(entry, namespace)
	regex.match(entry.OCI.Annotations["io.kubernetes.cri.sandbox-name"], name)
	part_fits(entry.OCI.Annotations, notes)
	every key, value in notes {
		note_fits(entry, key, value)
	}
	settings_fit(entry, spec)
	process_fits(entry.OCI.Process, spec.Process, name, namespace)
	capabilities_fit(entry.OCI.Process.Capabilities, spec.Process.Capabilities)
	linux_fits(entry.OCI.Linux, spec.Linux)
	bundle := bundle_of(spec.Root.Path)
	mounts_fit(entry, spec.Mounts, bundle, notes["io.kubernetes.cri.sandbox-id"])
	storages_fit(entry, bundle, notes["io.kubernetes.cri.sandbox-id"], spec.Root.Path)
	devices_fit(entry, notes)
	first := array.concat(pinned("sandbox_name", name), pinned("namespace", namespace))
	second := array.concat(pinned("network_namespace", network(spec)), pinned(input.container_id, index))
	ops := array.concat(first, second)
}

namespace_fits(entry, _) if entry.OCI.Annotations["io.kubernetes.cri.sandbox-namespace"] == ""

namespace_fits(entry, namespace) if entry.OCI.Annotations["io.kubernetes.cri.sandbox-namespace"] == namespace

network(spec) := path if {
	some one in spec.Linux.Namespaces
	one.Type == "network"
	path := one.Path
}

network(spec) := "" if {
	every one in spec.Linux.Namespaces {
		one.Type != "network"
	}
}

# ---- annotations

part_fits(wanted, notes) if {
	notes["io.kubernetes.cri.container-type"] == "sandbox"
	notes["io.katacontainers.pkg.oci.container_type"] == "pod_sandbox"
	wanted["io.kubernetes.cri.container-type"] == "sandbox"
	not notes["io.kubernetes.cri.container-name"]
	regex.match(wanted["nerdctl/network-namespace"], notes["nerdctl/network-namespace"])
	regex.match(wanted["io.kubernetes.cri.sandbox-log-directory"], notes["io.kubernetes.cri.sandbox-log-directory"])
	regex.match(wanted["io.kubernetes.cri.sandbox-id"], notes["io.kubernetes.cri.sandbox-id"])
}

part_fits(wanted, notes) if {
	notes["io.kubernetes.cri.container-type"] == "container"
	notes["io.katacontainers.pkg.oci.container_type"] == "pod_container"
	wanted["io.kubernetes.cri.container-type"] == "container"
	wanted["io.kubernetes.cri.container-name"] == notes["io.kubernetes.cri.container-name"]
	not notes["nerdctl/network-namespace"]
	not notes["io.kubernetes.cri.sandbox-log-directory"]
	regex.match(wanted["io.kubernetes.cri.sandbox-id"], notes["io.kubernetes.cri.sandbox-id"])
}

note_fits(_, key, _) if startswith(key, "io.kubernetes.cri.")

note_fits(entry, key, _) if entry.OCI.Annotations[key]

note_fits(entry, key, value) if {
	some pattern in entry.runtime_anno_patterns
	regex.match(pattern.key, key)
	regex.match(pattern.value, value)
}

# ---- process

settings_fit(entry, spec) if {
	entry.sandbox_pidns == input.sandbox_pidns
	entry.OCI.Version == spec.Version
	entry.OCI.Root.Readonly == spec.Root.Readonly
	entry.OCI.Process.Terminal == spec.Process.Terminal
	args_fit(entry.OCI.Process.Args, spec.Process.Args, spec.Annotations["io.kubernetes.cri.sandbox-name"])
}

process_fits(wanted, process, name, namespace) if {
	wanted.Cwd == process.Cwd
	wanted.NoNewPrivileges == process.NoNewPrivileges
	wanted.User.UID == process.User.UID
	wanted.User.GID == process.User.GID
	{group | some group in wanted.User.AdditionalGids} == {group | some group in process.User.AdditionalGids}
	every variable in process.Env {
		variable_fits(wanted.Env, variable, name, namespace)
	}
}

args_fit(wanted, args, name) if {
	count(wanted) == count(args)
	every index, word in args {
		word_fits(wanted[index], word, name)
	}
}

word_fits(wanted, _, _) if contains(wanted, "$(node-name)")

word_fits(wanted, word, name) if {
	filled := replace(wanted, "$(sandbox-name)", name)
	replace(filled, "$$", "$") == word
}

variable_fits(wanted, variable, _, _) if variable in wanted

variable_fits(_, variable, _, _) if {
	some pattern in policy_data.request_defaults.CreateContainerRequest.allow_env_regex
	regex.match(common_filled(pattern), variable)
}

variable_fits(wanted, variable, name, namespace) if {
	at := indexof(variable, "=")
	some one in wanted
	substring(one, 0, at + 1) == substring(variable, 0, at + 1)
	value_fits(substring(one, at + 1, -1), substring(variable, at + 1, -1), name, namespace)
}

value_fits("$(sandbox-name)", value, name, _) if regex.match(name, value)

value_fits("$(sandbox-namespace)", value, _, namespace) if value == namespace

value_fits(wanted, value, _, _) if {
	wanted in {"$(pod-ip)", "$(host-ip)"}
	regex.match(`^([1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])(\.[0-9]{1,3}){3}$`, value)
}

value_fits(wanted, value, _, _) if {
	some open in {"$(host-name)", "$(node-name)", "$(pod-uid)", "$(resource-field)", "$(todo-annotation)"}
	contains(wanted, open)
	not contains(value, "=")
}

capabilities_fit(wanted, sets) if {
	every kind in ["Bounding", "Effective", "Inheritable", "Permitted", "Ambient"] {
		capability_set(wanted[kind]) == capability_set(sets[kind])
	}
}

capability_set(list) := {trim_prefix(one, "CAP_") | some one in capability_list(list)}

capability_list(list) := policy_data.common.default_caps if list == ["$(default_caps)"]

capability_list(list) := policy_data.common.privileged_caps if list == ["$(privileged_caps)"]

capability_list(list) := list if not startswith(concat(",", list), "$(")

# ---- Linux

linux_fits(wanted, linux) if {
	namespaces(wanted) == namespaces(linux)
	every path in wanted.MaskedPaths {
		path in linux.MaskedPaths
	}
	every path in wanted.ReadonlyPaths {
		path in array.concat(linux.ReadonlyPaths, linux.MaskedPaths)
	}
	every device in linux.Devices {
		some one in wanted.Devices
		one.Path == device.Path
	}
	every key, value in linux.Sysctl {
		wanted.Sysctl[key] == value
	}
}

namespaces(linux) := [[replace(one.Type, "mount", "mnt"), one.Path] |
	some one in linux.Namespaces
	not one.Type in {"network", "cgroup"}
]

bundle_of(path) := bundle if {
	pattern := replace(policy_data.common.root_path, "$(bundle-id)", "([a-z0-9]{64})")
	found := regex.find_all_string_submatch_n(common_filled(pattern), path, 1)
	bundle := found[0][1]
}

common_filled(text) := filled if {
	parts := ["sfprefix", "root_path", "cpath", "spath", "ipv4_a", "ip_p", "svc_name_downward_env", "dns_label"]
	one := replace(text, "$(sfprefix)", policy_data.common.sfprefix)
	two := replace(one, "$(cpath)", policy_data.common.cpath)
	three := replace(two, "$(spath)", policy_data.common.spath)
	four := replace(three, "$(ipv4_a)", policy_data.common.ipv4_a)
	five := replace(four, "$(ip_p)", policy_data.common.ip_p)
	six := replace(five, "$(svc_name_downward_env)", policy_data.common.svc_name_downward_env)
	filled := replace(six, "$(dns_label)", policy_data.common.dns_label)
	count(parts) == 8
}

filled(text, bundle, sandbox) := replace(replace(common_filled(text), "$(bundle-id)", bundle), "$(sandbox-id)", sandbox)

# ---- mounts

mounts_fit(entry, mounts, bundle, sandbox) if {
	places := [place |
		some mount in mounts
		fitting := [at |
			some at
			wanted := entry.OCI.Mounts[at]
			mount_fits(wanted, mount, bundle, sandbox)
		]
		place := fitting[0]
	]
	count(places) == count(mounts)
	count({place | some place in places}) == count(mounts)
}

mount_fits(wanted, mount, bundle, sandbox) if {
	wanted.destination == mount.destination
	wanted.type_ == mount.type_
	options_fit(wanted, mount)
	source_fits(wanted.source, mount.source, bundle, sandbox)
}

options_fit(wanted, mount) if wanted.options == mount.options

options_fit(wanted, mount) if {
	mount.type_ == "sysfs"
	"rw" in wanted.options
	[option | some option in wanted.options; option != "rw"] == [option | some option in mount.options; option != "ro"]
	"ro" in mount.options
}

options_fit(wanted, mount) if {
	mount.type_ == "cgroup"
	extras := {extra | some extra in policy_data.cluster_config.cgroup_mount_extras_allowed}
	[option | some option in mount.options; not option in extras] == wanted.options
}

source_fits("", source, _, _) if {
	some storage in input.storages
	storage.driver in {"blk", "scsi"}
	storage.mount_point == source
}

source_fits(wanted, source, bundle, sandbox) if {
	wanted != ""
	regex.match(filled(wanted, bundle, sandbox), source)
}

# ---- storages

storages_fit(entry, bundle, sandbox, root) if {
	pulls := [storage | some storage in input.storages; storage.driver == "image_guest_pull"]
	others := [storage | some storage in input.storages; storage.driver != "image_guest_pull"]
	count(others) == count(entry.storages)
	every pull in pulls {
		pull_fits(pull, root)
	}
	every storage in others {
		some wanted in entry.storages
		storage_fits(wanted, storage, bundle, sandbox)
	}
}

pull_fits(pull, root) if {
	pull.fstype == "overlay"
	is_null(pull.fs_group)
	pull.shared == false
	count(pull.options) == 0
	pull.mount_point == root
}

storage_fits(wanted, storage, bundle, sandbox) if {
	wanted.driver == storage.driver
	wanted.driver_options == storage.driver_options
	wanted.fs_group == storage.fs_group
	wanted.fstype == storage.fstype
	wanted.shared == storage.shared
	wanted.options == storage.options
	storage_source_fits(wanted, storage, bundle, sandbox)
	mount_point_fits(wanted, storage, bundle, sandbox)
}

storage_source_fits(_, storage, _, _) if {
	storage.driver == "blk"
	regex.match("^[0-9a-f]{2}(/[0-9a-f]{2})?$", storage.source)
}

storage_source_fits(_, storage, _, _) if {
	storage.driver == "scsi"
	regex.match("^[0-9]+:[0-9]+$", storage.source)
}

storage_source_fits(wanted, storage, _, _) if wanted.source == storage.source

storage_source_fits(wanted, storage, bundle, sandbox) if {
	not storage.driver in {"blk", "scsi"}
	startswith(wanted.source, "^")
	regex.match(filled(wanted.source, bundle, sandbox), storage.source)
}

mount_point_fits(_, storage, _, _) if {
	storage.driver in {"blk", "scsi"}
	storage.mount_point == concat("/", [policy_data.common.spath, base64url.encode(storage.source)])
}

mount_point_fits(wanted, storage, bundle, sandbox) if {
	storage.fstype in {"local", "bind", "tmpfs"}
	regex.match(filled(wanted.mount_point, bundle, sandbox), storage.mount_point)
}

# ---- devices

devices_fit(entry, notes) if {
	vfio := [device | some device in input.devices; device.type_ == policy_data.devices.vfio.nvidia.gpu_gk_device_type]
	wanted_vfio := [device | some device in entry.devices; device.type_ == policy_data.devices.vfio.nvidia.gpu_gk_device_type]
	every device in input.devices {
		device_fits(entry, device)
	}
	vfio_fit(wanted_vfio, vfio, notes)
}

device_fits(entry, device) if {
	device.type_ != policy_data.devices.vfio.nvidia.gpu_gk_device_type
	some wanted in entry.devices
	wanted.container_path == device.container_path
}

device_fits(entry, device) if {
	number := vfio_number(device)
	device.id == concat("", ["vfio", number])
	some wanted in entry.devices
	wanted.type_ == device.type_
	wanted.vm_path == device.vm_path
	count(device.options) > 0
	every option in device.options {
		regex.match(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]=[0-9a-f]{2}/[0-9a-f]{2}$`, option)
	}
}

vfio_number(device) := number if {
	device.type_ == policy_data.devices.vfio.nvidia.gpu_gk_device_type
	startswith(device.container_path, policy_data.devices.vfio.device_path)
	number := trim_prefix(device.container_path, policy_data.devices.vfio.device_path)
	regex.match("^[0-9]+$", number)
}

vfio_notes(notes) := {trim_prefix(key, "cdi.k8s.io/vfio") |
	some key, value in notes
	regex.match(policy_data.devices.vfio.anno_key_regex, key)
	regex.match(policy_data.devices.vfio.nvidia.gpu_anno_value_regex, value)
}

vfio_fit(wanted, found, notes) if {
	count(found) > 0
	count(found) == count(wanted)
	numbers := {vfio_number(device) | some device in found}
	count(numbers) == count(found)
	numbers == vfio_notes(notes)
}

vfio_fit(wanted, [], notes) if count(vfio_notes(notes)) == count(wanted)

# ---- a process beside a container's first

ExecProcessRequest if {
	is_null(input.string_user)
	process := input.process
	process.SelinuxLabel == ""
	process.ApparmorProfile == ""
	no_capabilities(process)
	entry := policy_data.containers[data.pstate[input.container_id]]
	process_fits(entry.OCI.Process, process, data.pstate.sandbox_name, data.pstate.namespace)
	command_fits(entry, process)
}

no_capabilities(process) if is_null(process.Capabilities)

no_capabilities(process) if {
	every kind in ["Bounding", "Effective", "Inheritable", "Permitted", "Ambient"] {
		count(process.Capabilities[kind]) == 0
	}
}

command_fits(_, process) if process.Args in policy_data.request_defaults.ExecProcessRequest.allowed_commands

command_fits(entry, process) if {
	process.Args in entry.exec_commands
	process.Terminal == entry.OCI.Process.Terminal
}

command_fits(_, process) if {
	some pattern in policy_data.request_defaults.ExecProcessRequest.regex
	regex.match(pattern, concat(" ", process.Args))
}

# ---- files of the host

CopyFileRequest if {
	not ".." in split(input.path, "/")
	some pattern in policy_data.request_defaults.CopyFileRequest
	regex.match(replace(common_filled(pattern), "$(bundle-id)", "[a-z0-9]{64}"), input.path)
	file_fits
}

file_fits if input.file_type in {"Regular", "Directory"}

file_fits if {
	input.file_type == "Symlink"
	some pattern in policy_data.request_defaults.CopyFileRequest
	regex.match(concat("", [replace(common_filled(pattern), "$(bundle-id)", "[a-z0-9]{64}"), "[^/]*/."]), input.path)
	not startswith(input.symlink_target, "/")
	not ".." in split(input.symlink_target, "/")
}

# ---- network

UpdateInterfaceRequest if {
	limits := policy_data.request_defaults.UpdateInterfaceRequest
	bits.and(input.interface.raw_flags, bits.negate(limits.allow_raw_flags)) == 0
	not input.interface.name in limits.forbidden_names
	not input.interface.hwAddr in limits.forbidden_hw_addrs
}

UpdateRoutesRequest if {
	limits := policy_data.request_defaults.UpdateRoutesRequest
	every route in input.routes.Routes {
		not route.device in limits.forbidden_device_names
		every pattern in limits.forbidden_source_regex {
			not regex.match(pattern, route.source)
		}
	}
}

AddARPNeighborsRequest if {
	limits := policy_data.request_defaults.AddARPNeighborsRequest
	every neighbor in input.neighbors.ARPNeighbors {
		not neighbor.device in limits.forbidden_device_names
		neighbor.toIPAddress.mask == ""
		every pattern in limits.forbidden_cidrs_regex {
			not regex.match(pattern, neighbor.toIPAddress.address)
		}
		neighbor.state in limits.allowed_states
		bits.and(neighbor.flags, bits.negate(136)) == 0
	}
}
