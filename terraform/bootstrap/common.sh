# shellcheck shell=bash
# What the scripts in this directory share.

die() { # SENTENCE [STATUS]
    step=''
    echo "${0##*/}: $1" >&2
    exit "${2:-1}"
}

file() { # OPTION FILE: its absolute path
    [[ -f $2 && -r $2 ]] || die "The file of $1, $2, cannot be read: name one that can." 2
    realpath -- "$2"
}

changes=()
changed() {
    changes+=("$1")
    echo "  $1"
}

begin() {
    step=$1
    echo "$step"
}

# Write standard input to a file, if that changes it. It never goes through arguments, which others may read.
put() { # FILE MODE OWNER:GROUP
    local new
    new=$(mktemp -- "$(dirname -- "$1")/.new.XXXXXX")
    cat >"$new"
    if cmp -s -- "$new" "$1" && [[ $(stat -c '%a %U:%G' -- "$1") == "${2#0} $3" ]]; then
        rm -- "$new"
        return
    fi
    chown "$3" "$new" && chmod "$2" "$new" && mv -- "$new" "$1"
    changed "wrote $1"
}
