# Names for the commands of this repository: `just --list`. Each works without just as well.

_list:
    @just --list

# Everything that has to pass: format, dependencies, lints, tests, the demo
test:
    ./test

# A run from its creation to the image, with a real kube-apiserver and registry
demo:
    ./demo

# What CI runs: ./test on a clean checkout
ci:
    .ci/run

# Format the code
format:
    cargo fmt

# Lints, as ./test has them
lint:
    cargo clippy --locked --all-targets -- -D warnings

# Unit tests with NAME in their path
unit NAME='':
    cargo test --locked --lib {{NAME}}

# The rewrite: golden files, refusals, random pipelines
rewrite:
    cargo test --locked --test rewrite

# End-to-end cases with NAME in their path, on this machine
e2e NAME='':
    cargo test --locked --test e2e {{NAME}}

# Write golden files, docs/refusals.md and the chart's copies anew: read the diff
bless:
    UPDATE_GOLDEN=1 cargo test --locked --test install its_files
    UPDATE_GOLDEN=1 cargo test --locked --test rewrite golden
    UPDATE_GOLDEN=1 cargo test --locked --lib refusal

# Links and paths in the documentation
docs:
    cargo test --locked --test docs

# Speed and memory: peers, rewrite, admission, load or abuse
bench NAME *ARGUMENTS:
    cargo bench --bench {{NAME}} -- {{ARGUMENTS}}

# Look for inputs that break something: archive, table, snapshot, step, registry, yaml or review
fuzz TARGET *ARGUMENTS:
    fuzz/run {{TARGET}} {{ARGUMENTS}}

# Code of the rewrite that no test notices when it changes
mutants *FILES:
    tests/mutants/run {{FILES}}

# Build the programs that the tests run beside the product
assets:
    tests/assets/build

# Build the image and push it to REF
image REF:
    images/build {{REF}}
