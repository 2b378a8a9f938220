# Sourced by the other scripts: ensure_venv EXTRAS [FOLDER] makes FOLDER (.venv) hold this project, and does nothing when
# it already does. EXTRAS is "" or a comma-separated list, as in pip install -e '.[EXTRAS]'.

ensure_venv() {
    local extras="$1"
    local venv="${2:-.venv}"
    local python="${PYTHON:-python3}"
    # One stamp for each set of extras. The plain install is part of every other one, so any stamp will do for it.
    local state
    state="$(cat pyproject.toml constraints.txt | cksum)"
    local stamp="$venv/.installed-${extras:-core}"
    local known
    for known in "$stamp" $([[ -z "$extras" ]] && compgen -G "$venv/.installed-*" || true); do
        if [[ -x "$venv/bin/differad-edge" && -f "$known" && "$(cat "$known")" == "$state" ]]; then
            link_gi "$venv"
            return 0
        fi
    done
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "creating $venv with $("$python" --version)" >&2
        "$python" -m venv --clear "$venv"
    fi
    echo "installing differad-edge${extras:+[$extras]} into $venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable ".${extras:+[$extras]}"
    link_gi "$venv"
    # Written last: an interrupted install is repeated.
    printf '%s\n' "$state" > "$stamp"
}

# python3-gi, which Aravis is used through, is built for the system's Python: an environment of the same version can use
# it by a link.
link_gi() {
    local system=/usr/lib/python3/dist-packages/gi
    [[ -d "$system" ]] || return 0
    local site tag
    site="$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    tag="$("$1/bin/python" -c 'import sys; print(f"cpython-{sys.version_info.major}{sys.version_info.minor}-")')"
    if [[ ! -e "$site/gi" ]] && compgen -G "$system/_gi.$tag*" >/dev/null; then
        ln -s "$system" "$site/gi"
    fi
}
