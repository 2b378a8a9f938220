# Sourced by scripts/test and scripts/demo: ensure_venv EXTRAS ... makes .venv hold this project, and does nothing when
# it already does. EXTRAS is "" or a comma-separated list, as in pip install -e '.[EXTRAS]'.

ensure_venv() {
    local extras="$1"
    local python="${PYTHON:-python3}"
    # One stamp for each set of extras. The plain install is part of every other one, so any stamp will do for it.
    local state
    state="$(cat pyproject.toml constraints.txt | cksum)"
    local stamp=".venv/.installed-${extras:-core}"
    local known
    for known in "$stamp" $([[ -z "$extras" ]] && compgen -G ".venv/.installed-*" || true); do
        if [[ -x .venv/bin/differad-edge && -f "$known" && "$(cat "$known")" == "$state" ]]; then
            return 0
        fi
    done
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        echo "creating .venv with $("$python" --version)" >&2
        "$python" -m venv --clear .venv
    fi
    echo "installing differad-edge${extras:+[$extras]} into .venv" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable ".${extras:+[$extras]}"
    # Written last: an interrupted install is repeated.
    printf '%s\n' "$state" > "$stamp"
}
