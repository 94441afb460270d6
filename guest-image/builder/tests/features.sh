#!/bin/busybox sh
# The first program of a guest that has our kernel and nothing of ours besides: shows each
# feature of guest-image/kernel/features at work, in namespaces as a container has them.
# A line a case: "ok NAME" or "failed NAME: why".
export PATH=/bin
busybox mkdir -p /proc /sys /dev /run /tmp /m
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
busybox mkdir -p /dev/mqueue /dev/huge /dev/net
busybox mount -t tmpfs tmpfs /tmp
if [ "$1" != inside ]; then
    # What the firmware wrote ends here.
    echo
    busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
    echo "+cpuset +cpu +io +memory +hugetlb +pids +rdma +misc" >/sys/fs/cgroup/cgroup.subtree_control || echo "failed cgroups: not all controllers"
    busybox unshare -m -u -i -n -p -f --mount-proc=/proc /features.sh inside
    echo "features done"
    busybox reboot -f
fi
# The shell has programs of these names too.
ip() { /bin/ip "$@"; }
tc() { /bin/tc "$@"; }
bridge() { /bin/bridge "$@"; }
case_of() { # NAME COMMANDS
    local why
    if why=$(eval "set -e; $2" 2>&1 </dev/null); then
        echo "ok $1"
    else
        echo "failed $1: $(echo "$why" | busybox tail -n 3 | busybox tr '\n' ' ')"
    fi
}
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -t mqueue mqueue /dev/mqueue
ip link set lo up

case_of namespaces 'for n in cgroup ipc mnt net pid time user uts; do [ -e /proc/self/ns/$n ]; done; busybox unshare -U -r busybox id -u | busybox grep -qx 0'
case_of cgroups 'for c in cpuset cpu io memory hugetlb pids rdma misc; do busybox grep -qw $c /sys/fs/cgroup/cgroup.controllers; done
    busybox mkdir -p /sys/fs/cgroup/a; echo 0 >/sys/fs/cgroup/a/pids.max
    ! (echo 0 >/sys/fs/cgroup/a/cgroup.procs; busybox true) 2>/dev/null
    for f in cpu.max cpu.pressure cpuset.cpus memory.max memory.swap.max memory.pressure io.max io.latency cgroup.freeze cgroup.kill hugetlb.2MB.max; do [ -e /sys/fs/cgroup/a/$f ]; done'
case_of bpf '[ "$(busybox cat /proc/sys/kernel/unprivileged_bpf_disabled)" != 0 ]; iptables=xtables-nft-multi; $iptables iptables -A INPUT -m bpf --bytecode "1,6 0 0 0" -j DROP'
case_of io-uring '[ "$(busybox cat /proc/sys/kernel/io_uring_disabled)" = 0 ]'
case_of seccomp 'busybox grep -qw errno /proc/sys/kernel/seccomp/actions_avail'
case_of landlock 'busybox mount -t securityfs securityfs /sys/kernel/security; busybox grep -q landlock /sys/kernel/security/lsm'
case_of ipc 'ipcmk -M 4096; ipcmk -S 2; ipcmk -Q; for k in shm sem msg; do [ "$(busybox wc -l </proc/sysvipc/$k)" = 2 ]; done; : >/dev/mqueue/q; [ -e /dev/mqueue/q ]'
case_of hugepages 'echo 4 >/proc/sys/vm/nr_hugepages; busybox mount -t hugetlbfs hugetlbfs /dev/huge; busybox fallocate -l 4194304 /dev/huge/f; [ "$(busybox awk "/HugePages_Free/ { print \$2 }" /proc/meminfo)" = 2 ]'

disk() { # NAME: mounts an image by a loop device, read by the kernel for real
    busybox mkdir -p /m/$1; busybox mount -t ${1%%.*} -o loop,${2:-ro} /images/$1 /m/$1
    busybox cmp /m/$1/busybox /bin/busybox
}
case_of file-systems-ext4 'disk ext4 rw,prjquota; echo x >/m/ext4/y; busybox sync; [ "$(busybox cat /m/ext4/y)" = x ]'
for kind in erofs erofs.zstd erofs.lz4 squashfs squashfs.zstd squashfs.xz squashfs.lz4; do
    [ ! -e /images/$kind ] || case_of file-systems-$kind "disk $kind"
done
case_of file-systems-tmpfs 'busybox mkdir -p /m/tmpfs; busybox mount -t tmpfs -o size=1m tmpfs /m/tmpfs; ! busybox dd if=/dev/zero of=/m/tmpfs/f bs=1M count=2 2>/dev/null'
case_of file-systems-overlay 'cd /tmp; busybox mkdir -p l u w o; echo 1 >l/f; busybox mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay o; echo 2 >o/f; [ "$(busybox cat l/f u/f | busybox tr "\n" ,)" = 1,2, ]'
case_of file-systems-fuse 'busybox mkdir -p /m/fuse; exec 9<>/dev/fuse; busybox mount -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 fuse /m/fuse; [ "$(busybox dd bs=65536 count=1 <&9 2>/dev/null | busybox wc -c)" -ge 56 ]'

case_of bridge 'ip link add br0 type bridge vlan_filtering 1; ip link add v0 type veth peer name v1; ip link set v0 master br0; bridge vlan add dev v0 vid 7; bridge vlan show dev v0 | busybox grep -qw 7; [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; ip link add link br0 name br0.7 type vlan id 7'
case_of interfaces 'ip link add d0 type dummy; ip addr add 10.9.0.1/24 dev d0; ip link set d0 up; busybox ping -c1 -W2 10.9.0.1
    ip link add link d0 name m0 type macvlan mode bridge; ip link add i0 link v1 type ipvlan mode l2; ip link add x0 type vxlan id 42 dstport 4789 remote 10.9.0.2 dev d0; ip link set x0 up
    [ -c /dev/net/tun ] || busybox mknod /dev/net/tun c 10 200; ip tuntap add dev t0 mode tun; ip tuntap add dev t1 mode tap; ip link set t0 up'
# Two ends in two namespaces, which only reach each other through the tunnel.
case_of wireguard 'busybox unshare -n busybox sleep 60 >/dev/null 2>&1 & other=$!; busybox sleep 1
    ip link add w0 type veth peer name w1; ip link set w1 netns $other; ip addr add 10.8.0.1/24 dev w0; ip link set w0 up
    there() { busybox nsenter -t $other -n "$@"; }
    there ip addr add 10.8.0.2/24 dev w1; there ip link set w1 up
    wg genkey >/tmp/a; wg genkey >/tmp/b
    ip link add wg0 type wireguard; wg set wg0 private-key /tmp/a listen-port 51820 peer $(wg pubkey </tmp/b) allowed-ips 10.7.0.2/32 endpoint 10.8.0.2:51820
    there ip link add wg0 type wireguard; there wg set wg0 private-key /tmp/b listen-port 51820 peer $(wg pubkey </tmp/a) allowed-ips 10.7.0.1/32 endpoint 10.8.0.1:51820
    ip addr add 10.7.0.1/24 dev wg0; ip link set wg0 up; there ip addr add 10.7.0.2/24 dev wg0; there ip link set wg0 up
    busybox ping -c1 -W9 10.7.0.2; kill $other'
case_of network 'ip rule add from 10.9.0.1 table 7; ip route add default dev d0 table 7; ip -6 rule add from fd00::1 table 7; tc qdisc add dev d0 root handle 1: htb; tc class add dev d0 parent 1: classid 1:1 htb rate 1mbit; tc filter add dev d0 parent 1: u32 match ip dst 10.9.0.7/32 flowid 1:1; tc qdisc add dev v1 root fq_codel; tc qdisc add dev m0 ingress; echo bbr >/proc/sys/net/ipv4/tcp_congestion_control'
case_of netfilter-nft 'nft -f /rules.nft; nft list ruleset | busybox grep -q masquerade; ! busybox ping -c1 -W1 127.0.0.9'
iptables=xtables-nft-multi
for ipt in iptables ip6tables; do
    case_of netfilter-$ipt-nft "$iptables $ipt -A INPUT -m conntrack --ctstate ESTABLISHED -m comment --comment x -j ACCEPT
        $iptables $ipt -A INPUT -p tcp -m multiport --dports 80,443 -m limit --limit 5/s -j LOG
        $iptables $ipt -A INPUT -p tcp --dport 81 -j REJECT --reject-with tcp-reset
        $iptables $ipt -A INPUT -p udp --dport 81 -j REJECT
        $iptables $ipt -A OUTPUT -m owner --uid-owner 1337 -j RETURN
        $iptables $ipt -A OUTPUT -m mark --mark 7 -m statistic --mode random --probability 0.5 -j DROP
        $iptables $ipt -A OUTPUT -m addrtype --dst-type LOCAL -j ACCEPT
        $iptables $ipt -A INPUT -p tcp -m hashlimit --hashlimit-upto 5/s --hashlimit-name h -j ACCEPT
        $iptables $ipt -A INPUT -m recent --name r --set
        $iptables $ipt -A INPUT -m string --algo bm --string evil -j DROP
        $iptables $ipt -A INPUT -p tcp -m connlimit --connlimit-above 9 -j DROP
        $iptables $ipt -A INPUT -m pkttype --pkt-type broadcast -m length --length 1:99 -m state --state NEW -j NFLOG
        $iptables $ipt -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 15001
        $iptables $ipt -t nat -A POSTROUTING -o d0 -j MASQUERADE
        $iptables $ipt -t mangle -A PREROUTING -j CONNMARK --restore-mark
        $iptables $ipt -t mangle -A PREROUTING -p tcp -m socket -j MARK --set-mark 1
        $iptables $ipt -t mangle -A PREROUTING -p tcp -j TPROXY --on-port 15006 --tproxy-mark 1
        $iptables $ipt -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
        $iptables $ipt -t raw -A PREROUTING -p tcp -j CT --notrack
        $iptables $ipt -A FORWARD -j NFQUEUE --queue-num 1"
done
case_of confidential '[ -d /sys/kernel/config ] && busybox mount -t configfs configfs /sys/kernel/config && [ -d /sys/kernel/config/tsm/report ]'
case_of locked 'busybox grep -q "\[confidentiality\]" /sys/kernel/security/lockdown; [ ! -e /dev/mem ]; [ ! -e /proc/kcore ]; [ ! -e /proc/modules ]; [ ! -e /proc/sysrq-trigger ]; [ ! -d /sys/kernel/debug ]; [ ! -e /proc/kallsyms ]'
case_of processes 'for f in /proc/self/io /proc/pressure/memory /proc/self/pagemap /proc/sys/fs/inotify /proc/sys/fs/epoll /proc/sys/fs/aio-max-nr /proc/swaps; do [ -e $f ] || { echo no $f; exit 1; }; done'
case_of base '[ "$(busybox nproc)" = 2 ]; busybox uname -r | busybox grep -q -- -kata-cc$'
