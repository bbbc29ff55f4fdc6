# Sourced by the scripts beside it: makes an image of one layer, always the same bytes for the same files, and pushes it.
# Needs GNU tar, gzip, sha256sum and crane (the tests' own where there is none on the PATH); no root, no Docker.

# push REF FOLDER CONFIG: the files of FOLDER as an image with CONFIG (JSON: OCI image-spec, config.md, "config").
push() {
    local ref=$1 folder=$2 config=$3 arch crane layout
    case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) echo "images: no image can be built on a $(uname -m) machine, only on x86_64 and aarch64" >&2 && return 1 ;;
    esac
    crane=$(command -v crane) || crane=$("$(dirname "${BASH_SOURCE[0]}")/../tests/assets/build" crane | cut -d= -f2)
    layout=$(mktemp -d)
    mkdir -p "$layout/blobs/sha256"

    tar -C "$folder" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$layout/tar" .
    local diff_id layer image manifest
    diff_id=sha256:$(sha256sum <"$layout/tar" | cut -d' ' -f1)
    gzip -9n "$layout/tar"
    layer=$(blob "$layout" application/vnd.oci.image.layer.v1.tar+gzip <"$layout/tar.gz")
    image=$(blob "$layout" application/vnd.oci.image.config.v1+json <<<"{
        \"created\": \"1970-01-01T00:00:00Z\", \"architecture\": \"$arch\", \"os\": \"linux\", \"config\": $config,
        \"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"$diff_id\"]}
    }")
    manifest=$(blob "$layout" application/vnd.oci.image.manifest.v1+json <<<"{
        \"schemaVersion\": 2, \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\",
        \"config\": $image, \"layers\": [$layer]
    }")
    echo '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
    echo "{\"schemaVersion\": 2, \"manifests\": [$manifest]}" >"$layout/index.json"
    rm "$layout/tar.gz"
    "$crane" push "$layout" "$ref"
    rm -r "$layout"
}

# blob LAYOUT MEDIATYPE: stores standard input and prints its descriptor.
blob() {
    local digest
    cat >"$1/blob"
    digest=$(sha256sum <"$1/blob" | cut -d' ' -f1)
    echo "{\"mediaType\": \"$2\", \"digest\": \"sha256:$digest\", \"size\": $(stat -c %s "$1/blob")}"
    mv "$1/blob" "$1/blobs/sha256/$digest"
}
