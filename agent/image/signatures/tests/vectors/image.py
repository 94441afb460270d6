"""The image under test, payloads that are wrong on purpose, and a registry's store as plain files."""

import gzip
import hashlib
import io
import json
import pathlib
import shutil
import sys
import tarfile


def layout(folder):
    root = pathlib.Path(folder)
    blobs = root / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content):
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": "sha256:" + digest, "size": len(content)}

    def as_json(value):
        return json.dumps(value, separators=(",", ":")).encode()

    def image(architecture):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            entry = tarfile.TarInfo("hello")
            entry.size = 6
            tar.addfile(entry, io.BytesIO(b"hello\n"))
        diff_id = "sha256:" + hashlib.sha256(archive.getvalue()).hexdigest()
        config = blob(as_json({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }))
        layer = blob(gzip.compress(archive.getvalue(), mtime=0))
        kind = "application/vnd.oci.image."
        return blob(as_json({
            "schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
            "config": {"mediaType": kind + "config.v1+json", **config},
            "layers": [{"mediaType": kind + "layer.v1.tar+gzip", **layer}],
        }))

    kind = "application/vnd.oci.image."
    entries = [
        {"mediaType": kind + "manifest.v1+json", **image(name), "platform": {"os": "linux", "architecture": name}}
        for name in ("arm64", "amd64")
    ]
    index = blob(as_json({"schemaVersion": 2, "mediaType": kind + "index.v1+json", "manifests": entries}))
    named = lambda name, kind, entry: {
        "mediaType": kind, "digest": entry["digest"], "size": entry["size"],
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    (root / "index.json").write_bytes(as_json({"schemaVersion": 2, "manifests": [
        named("single", kind + "manifest.v1+json", entries[1]),
        named("index", kind + "index.v1+json", index),
    ]}))
    (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def payload(wrong, digest):
    critical = {
        "type": "atomic container signature",
        "image": {"docker-manifest-digest": "sha256:" + digest},
        "identity": {"docker-reference": "registry.example:5000/app:1"},
    }
    whole = {"critical": critical, "optional": {"creator": "somebody", "timestamp": 1717200000}}
    if wrong == "other-digest":
        critical["image"]["docker-manifest-digest"] = "sha256:" + "0" * 64
    elif wrong == "other-repository":
        critical["identity"]["docker-reference"] = "registry.example:5000/other:1"
    elif wrong == "other-tag":
        critical["identity"]["docker-reference"] = "registry.example:5000/app:2"
    elif wrong == "other-type":
        critical["type"] = "cosign container image signature"
    elif wrong == "extra-critical":
        critical["more"] = 1
    elif wrong == "extra-member":
        whole["more"] = 1
    elif wrong == "no-optional":
        del whole["optional"]
    elif wrong == "fraction":
        whole["optional"]["timestamp"] = 1.5
    text = json.dumps(whole)
    if wrong == "twice":
        text = text.replace('"image":', '"image": {"docker-manifest-digest": "sha256:%s"}, "image":' % ("0" * 64))
    elif wrong == "text":
        text = "hello"
    sys.stdout.write(text)


def dump(store, target):
    store, target = pathlib.Path(store) / "docker/registry/v2", pathlib.Path(target)
    (target / "blobs").mkdir(parents=True)
    for found in store.glob("blobs/sha256/*/*/data"):
        shutil.copyfile(found, target / "blobs" / found.parent.name)
    lines = []
    repositories = store / "repositories"
    for link in repositories.glob("**/_manifests/tags/*/current/link"):
        repository = link.relative_to(repositories).parts
        name = "/".join(repository[: repository.index("_manifests")])
        lines.append(f"{name} {link.parent.parent.name} {link.read_text()}\n")
    for link in repositories.glob("**/_manifests/revisions/sha256/*/link"):
        repository = link.relative_to(repositories).parts
        name = "/".join(repository[: repository.index("_manifests")])
        lines.append(f"{name} {link.read_text()} {link.read_text()}\n")
    (target / "manifests").write_text("".join(sorted(lines)))


{"layout": layout, "payload": payload, "dump": dump}[sys.argv[1]](*sys.argv[2:])
