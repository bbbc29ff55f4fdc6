# Sourced by the scripts beside it: makes an image of one layer, always the same bytes for the same files, and pushes it.
# Needs GNU tar, gzip, sha256sum and crane (the tests' own where there is none on the PATH); no root, no Docker.

# push REF FOLDER ARCH CONFIG: the files of FOLDER as an image for ARCH (as Go names it) with CONFIG (JSON: OCI image-spec,
# config.md, "config").
push() {
    local ref=$1 folder=$2 arch=$3 config=$4 crane layout
    crane=$(find_crane)
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

# Where crane is.
find_crane() { type -P crane || "$(dirname "${BASH_SOURCE[0]}")/../tests/assets/build" crane | cut -d= -f2; }

# architecture_of PROGRAM: what machine it is for, by its ELF header (System V ABI: e_machine), as Go names it.
architecture_of() {
    local magic machine
    read -r magic machine < <(od -An -v -tx1 -N20 "$1" | tr -d ' \n' | sed 's/^\(.\{12\}\).\{24\}\(....\)$/\1 \2\n/')
    case $magic-$machine in
    7f454c460201-3e00) echo amd64 ;;
    7f454c460201-b700) echo arm64 ;;
    7f454c460202-0016) echo s390x ;;
    7f454c460201-1500) echo ppc64le ;;
    *) echo "images: $1 is not a program for amd64, arm64, s390x or ppc64le" >&2 && return 1 ;;
    esac
}

# blob LAYOUT MEDIATYPE: stores standard input and prints its descriptor.
blob() {
    local digest
    cat >"$1/blob"
    digest=$(sha256sum <"$1/blob" | cut -d' ' -f1)
    echo "{\"mediaType\": \"$2\", \"digest\": \"sha256:$digest\", \"size\": $(stat -c %s "$1/blob")}"
    mv "$1/blob" "$1/blobs/sha256/$digest"
}
