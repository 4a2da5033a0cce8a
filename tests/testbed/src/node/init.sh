# What process 1 of the node's namespaces does before anything else runs in them. sh, with these in the environment:
# DIR (the node's folder), APP, ADDRESS, NAME, CGROUP, and PATH.
set -eu

mount --make-rprivate /
mount --make-rshared / # peers in here only; the kubelet wants shared mounts
# Default paths everywhere, on storage of the node's own.
mkdir -p "$DIR/var/lib/kubelet" "$DIR/var/log/pods" "$DIR/var/tmp" "$DIR/sys"
mount --bind "$DIR/var" /var
ln -sfn /run /var/run
mount -t tmpfs tmpfs /run

# The kubelet sets these for the whole machine: it gets copies.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  copy=$DIR/sys/$(echo "$name" | tr / .)
  cat "/proc/sys/$name" >"$copy"
  mount --bind "$copy" "/proc/sys/$name"
done

hostname "$NAME"
ip link set lo up
ip link add node0 type veth peer name node1
ip addr add "$ADDRESS/24" dev node0
ip link set node0 up
ip link set node1 up
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

touch "$DIR/namespaces-ready"
exec "$APP" pause
