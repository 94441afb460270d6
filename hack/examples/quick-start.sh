#!/usr/bin/env bash
# Keys on proof, for an owner who begins. `hack/demo` plays this on a node that it makes, and
# docs/quick-start.md is made of it: a heading for each line that begins with `##`, a paragraph for
# comments, a block for commands but for those that end in `#-`. With `--page` it prints that page.
set -euo pipefail

if [[ ${1:-} == --page ]]; then
    exec awk '
        function close_block() { if (block) { print "```"; block = 0 } }
        /^## /  { close_block(); printf "%s%s\n", started ? "\n" : "", $0; started = 1; text = 0; next }
        !started || /#-$/ { next }
        /^# / && !block { if (!text) { print "" } text = 1; print substr($0, 3); next }
        /^$/    { close_block(); text = 0; next }
        { if (!block) { print "\n```sh"; block = 1; text = 0 } print }
        END { close_block() }
        BEGIN { print "# Quick start: keys on proof\n"
                print "`hack/demo` plays these commands on a node that it makes, without a cluster and with a"
                print "secure processor that is simulated, so that nothing there is protected. On a node with"
                print "SEV-SNP they are the same without `roots` and `--roots`, which name the simulated"
                print "processor. `$registry`, `$broker` and `$ca` stand for a registry, the broker'"'"'s address and the"
                print "registry'"'"'s certificate, `$guest_image` for the directory of the guest image, `$pod` for"
                print "[words.yaml](../hack/examples/words.yaml). Where signatures lie, `registries.d` says.\n" }
    ' "$0"
fi

registry=$1 broker=$2 ca=$3 guest_image=$4 roots=$5 pod=$6 acts=${7:-all}
## Keys and broker
# One key for the image, one for signatures, and a broker. Its store is encrypted under a key that lies
# outside of its directory.
openssl rand -out image.key 32
gpg --batch --quiet --passphrase '' --quick-gen-key owner@example ed25519 sign never
gpg --armor --export owner@example >owner.asc
kata-cc broker init --directory broker --store-key broker.key --name "$broker" >/dev/null
kata-cc broker put --directory broker --store-key broker.key default/key/words image.key

## The image
# Encrypted, then signed: encryption changes the digest.
sign() {
    skopeo --policy accept.json --registries.d registries.d copy --quiet --sign-by owner@example \
        --src-cert-dir "$(dirname "$ca")" --dest-cert-dir "$(dirname "$ca")" "docker://$1" "docker://$1"
}
kata-cc image encrypt --key kbs:///default/key/words=image.key --extra-root "$ca" \
    "docker://$registry/words:plain" "docker://$registry/words:1"
sign "$registry/words:1"

## What the guest is told
# Where the broker is, which signatures count, and where they are: initdata, which the launch binds.
cat >cdh.toml <<'END'
[image]
image_security_policy_uri = "file:///run/confidential-containers/initdata/image-policy.json"
sigstore_config_uri = "file:///run/confidential-containers/initdata/sigstore.yaml"
END
cat >image-policy.json <<END
{"default": [{"type": "reject"}], "transports": {"docker": {"$registry/words": [{
  "type": "signedBy", "keyType": "GPGKeys",
  "keyPath": "/run/confidential-containers/initdata/owner.asc"}]}}}
END
cat >sigstore.yaml <<END
# Signatures of the owner
default-docker:
  lookaside: http://$broker:8092
END
kata-cc initdata make --output base.toml \
    aa.toml=broker/aa.toml cdh.toml image-policy.json sigstore.yaml owner.asc >/dev/null

## The policy
# Made from the pod's YAML: this image by its digest, this command, nothing else. It goes into the
# initdata; the pod's annotation carries both. The pod shows its own evidence, which its policy must
# allow by name; the nonce makes it fresh.
nonce=$(openssl rand -hex 16)
sed "s/NONCE/$nonce/" "$pod" >plain.yaml
gen=(kata-cc policy gen --no-service-account --grant evidence --no-cache --extra-root "$ca" --initdata base.toml)
"${gen[@]}" plain.yaml >pod.yaml
"${gen[@]}" --output initdata plain.yaml >broker/initdata.toml

## What the broker accepts
# The launch measurement of the guest image, and floors for the platform ([verify.md](verify.md)).
measurement=$(kata-cc measure "$guest_image" --vcpus 1 --json | sed -n 's/.*"launch_digest": "\(.*\)".*/\1/p')
cat >broker/references.json <<END
{ "products": {"Genoa": {"tcb": {"bootloader": 10, "tee": 1, "snp": 23, "microcode": 84}, "firmware": "1.55.0"}},
  "revocation": "optional",
  "guest_policy": {"abi_major": 0, "abi_minor": 0, "smt_allowed": true},
  "identities": {"measurements": ["$measurement"]} }
END
cat >broker/broker.toml <<END
listen = "$broker:8443"
references = "references.json"
initdata = ["initdata.toml"]
roots = "$roots"
END
kata-cc broker check --directory broker
kata-cc broker serve --directory broker --store-key broker.key >broker.log 2>&1 &

## The pod
# The guest attests to the broker, gets the key, and pulls; then the pod prints its words.
kata-cc run --handler kata-cc pod.yaml | tee output

## Evidence
# What the pod prints beside its words is evidence: which chip, which launch, which initdata, what ran.
sed -n 's/^\[words\] {/{/p' output >evidence.json
kata-cc verify evidence.json --references broker/references.json --roots "$roots" \
    --initdata broker/initdata.toml --nonce "$(printf %s "$nonce" | od -An -v -tx1 | tr -d ' \n')"

## Who got what
# Every decision is in the broker's log, with the check that refused.
kata-cc broker explain --directory broker
[[ $acts == all ]] || exit 0 #-

## Another key
# A new key under the same name, and the image once more under it; with its digest the policy is
# another, and so is the initdata that the broker accepts.
openssl rand -out image.key 32
kata-cc broker put --directory broker --store-key broker.key default/key/words image.key
kata-cc image encrypt --key kbs:///default/key/words=image.key --extra-root "$ca" \
    "docker://$registry/words:plain" "docker://$registry/words:2"
sign "$registry/words:2"
mv pod.yaml old.yaml
sed -i s/words:1/words:2/ plain.yaml
"${gen[@]}" plain.yaml >pod.yaml
"${gen[@]}" --output initdata plain.yaml >broker/initdata.toml
kata-cc run --handler kata-cc pod.yaml

## After a change
# The broker gives nothing to the pod as it was, and says why.
if kata-cc run --handler kata-cc old.yaml; then exit 1; fi
kata-cc broker explain --directory broker
