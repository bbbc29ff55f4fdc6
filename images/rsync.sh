# Sourced by images/build: the programs rsync and ssh of this machine, for an image.

# add_rsync FOLDER ARCH: puts them into FOLDER, where they are here, with what they load: libraries, the loader that starts them, and
# nss_wrapper, which names the user of a step to ssh (src/store/rsync/process.rs).
add_rsync() {
    local root=$1 arch=$2 program path file wrapper here
    local programs=()
    for program in rsync ssh; do
        path=$(type -P "$program") || { echo "images: there is no program $program here: install it" >&2 && return 1; }
        path=$(realpath "$path")
        programs+=("$path")
    done
    here=$(architecture_of "${programs[0]}") || return
    [ "$here" = "$arch" ] || { echo "images: rsync here is for $here, and the image is for $arch: build it there" >&2 && return 1; }
    for path in "${programs[@]}"; do
        install -D -m 755 "$path" "$root/usr/bin/${path##*/}"
    done
    wrapper=$(find /usr/lib /lib -name 'libnss_wrapper.so' -print -quit 2>/dev/null || true)
    if [ -n "$wrapper" ]; then
        install -D -m 755 "$(realpath "$wrapper")" "$root/tekton-wrap/lib/libnss_wrapper.so"
    else
        echo "images: without libnss-wrapper here, steps that run as users without a name can't use rsync+ssh://" >&2
    fi
    # Names as programs ask for them, with what they lead to.
    for file in $(ldd "${programs[@]}" ${wrapper:+"$wrapper"} | grep -v ':$' | grep -o '/[^ ]*\.so[^ ]*' | sort -u); do
        install -D -m 755 "$(realpath "$file")" "$root$file"
    done
    install -d -m 1777 "$root/tmp"
    mkdir -p "$root/etc"
    printf 'root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
}
