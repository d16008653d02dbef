package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"coffer/objstore/storetest"
)

// TestPrograms runs programs that ask more of a file system than cp does, on
// the emulator and on a store that keeps objects as files. What they have made
// is looked at again after a remount.
func TestPrograms(t *testing.T) {
	t.Run("emulator", func(t *testing.T) { programs(t, startEmulator(t, "aws").Env()) })
	t.Run("versitygw", programsOnVersityGW)
}

func programsOnVersityGW(t *testing.T) {
	programs(t, storetest.StartVersityGW(t).Env(), "--allow-unencrypted")
}

// programs runs them on one store.
func programs(t *testing.T, env []string, args ...string) {
	for _, tool := range []string{"git", "rsync", "sqlite3", "make", "gcc", "tar", "/usr/bin/python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			storetest.Missing(t, "%v: make test installs it", err)
		}
	}
	m := mountStore(t, env, args...)
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	d := m.path("bucket")
	script(t, d, "git", `
		git init -q --bare origin.git
		git clone -q origin.git repo 2>/dev/null
		cd repo
		for i in 1 2 3 4 5; do
			mkdir -p dir$i && seq $((i * 1000)) > dir$i/file && git add -A && git commit -q -m "commit $i"
		done
		git branch side HEAD~2 && git checkout -q side && echo side > side && git add side && git commit -q -m side
		git checkout -q - && git merge -q -m merged side
		git mv dir1/file dir1/moved && git commit -q -a -m moved
		git gc -q --prune=now && git fsck --strict 2>&1 && git push -q origin HEAD
		git stash list && git status --porcelain`)
	script(t, d, "rsync", `
		mkdir "$TMP/tree" && cp -a "$SRC/." "$TMP/tree/" && ln -s nowhere "$TMP/tree/link"
		rsync -a "$TMP/tree/" rsync/
		rsync -a -i "$TMP/tree/" rsync/
		diff -r --no-dereference "$TMP/tree" rsync
		echo more >> "$TMP/tree/doc.go" && rsync -a --inplace "$TMP/tree/" rsync/ && rsync -a --delete --exclude doc.go "$TMP/tree/" rsync/
		diff -r --no-dereference "$TMP/tree" rsync`)
	script(t, d, "sqlite", `
		sqlite3 db 'create table t(a integer primary key, b text); with recursive n(x) as (select 1 union all select x+1 from n where x < 5000) insert into t(b) select hex(randomblob(30)) from n;'
		for i in 1 2 3; do sqlite3 db "begin; update t set b = 'x' where a % 7 = $i; commit; delete from t where a % 11 = $i; vacuum;"; done
		test "$(sqlite3 db 'pragma integrity_check; select count(*) from t;' | tr '\n' ' ')" = "ok 3635 "`)
	script(t, d, "make", `
		mkdir c && cd c
		printf 'int f(void); int main(void) { return f(); }\n' > main.c; printf 'int f(void) { return 0; }\n' > f.c
		printf 'prog: main.o libf.a\n\tgcc -o $@ main.o libf.a\nlibf.a: f.o\n\tar rcs $@ f.o\n%%.o: %%.c\n\tgcc -c $<\n' > Makefile
		make -s && ./prog && make -q
		sleep 1.1; printf 'int f(void) { return 3; }\n' > f.c; ! make -q && make -s && ! ./prog && make -q`)
	script(t, d, "editors", `
		printf 'one\ntwo\n' > text
		printf ',s/two/three/\nw\nq\n' > "$TMP/script"
		cp text text~ && printf 'one\nthree\n' > .text.swp && mv .text.swp text && rm text~   # write anew, rename over
		sed -i s/one/uno/ text && test "$(cat text)" = "$(printf 'uno\nthree')"`)
	script(t, d, "archives", `
		tar -C "$SRC" -cf archive.tar . && mkdir untarred && tar -C untarred -xf archive.tar && diff -r "$SRC" untarred
		gzip -k archive.tar && gzip -dc archive.tar.gz | cmp - archive.tar`)
	script(t, d, "dd and sparse files", `
		dd if=/dev/urandom of="$TMP/data" bs=77777 count=99 status=none
		dd if="$TMP/data" of=odd bs=3333 status=none && cmp "$TMP/data" odd
		dd if=odd of=odd2 bs=1M oflag=direct status=none && cmp odd odd2
		dd if=odd of=backwards bs=4k seek=500 count=10 status=none && dd if=odd of=backwards bs=4k seek=10 count=10 conv=notrunc status=none
		truncate -s 20M sparse && printf x | dd of=sparse bs=1 seek=10000000 conv=notrunc status=none
		cp --sparse=always sparse "$TMP/sparse" && cmp sparse "$TMP/sparse" && cp --sparse=always "$TMP/sparse" sparse2 && cmp sparse sparse2`)
	script(t, d, "HDF5", `/usr/bin/python3 - <<'END'
import h5py, numpy as np
with h5py.File("data.h5", "w") as f:
    f["plain"] = np.arange(2_000_000)
    f.create_dataset("grown", (0, 1000), maxshape=(None, 1000), chunks=(10, 1000), compression="gzip", dtype="f8")
for step in range(3):
    with h5py.File("data.h5", "r+") as f:
        f["plain"][step * 500_000:step * 500_000 + 1000] = -1 - step
        f["grown"].resize(100 * (step + 1), axis=0)
        f["grown"][100 * step:] = step
        f.attrs["step"] = step
END
	h5=$(cat <<'END'
import h5py, numpy as np
want = np.arange(2_000_000)
for step in range(3):
    want[step * 500_000:step * 500_000 + 1000] = -1 - step
with h5py.File("data.h5", "r") as f:
    assert (f["plain"][:] == want).all() and f["grown"].shape == (300, 1000) and f.attrs["step"] == 2
    assert (f["grown"][:] == np.repeat(np.arange(3.0), 100)[:, None]).all()
END
	)
	echo "$h5" > check.py && /usr/bin/python3 check.py`)
	script(t, d, "Python", `/usr/bin/python3 - <<'END'
import dbm.dumb, mmap, os, pickle, shutil, tempfile, zipfile
with zipfile.ZipFile("z.zip", "w") as z:
    z.writestr("one", "1" * 100_000)
with zipfile.ZipFile("z.zip", "a") as z:
    z.writestr("two", os.urandom(200_000))
with zipfile.ZipFile("z.zip") as z:
    assert z.testzip() is None and z.namelist() == ["one", "two"]
with dbm.dumb.open("db", "c") as d:
    for i in range(300):
        d[str(i)] = str(i) * 10
with dbm.dumb.open("db") as d:
    assert len(d) == 300 and d["299"] == b"299" * 10
with open("mapped", "w+b") as f:
    f.truncate(1 << 20)
    with mmap.mmap(f.fileno(), 0) as m:
        m[5000:5005] = b"hello"
        m.flush()
        m[-5:] = b"there"
assert open("mapped", "rb").read() == bytes(5000) + b"hello" + bytes((1 << 20) - 5010) + b"there"
with tempfile.TemporaryFile(dir=".") as f:
    pickle.dump(list(range(100_000)), f)
    f.seek(0)
    assert pickle.load(f)[-1] == 99_999
with tempfile.TemporaryDirectory(dir=".") as t:
    shutil.copytree(os.environ["SRC"], t + "/tree")
    shutil.move(t + "/tree", t + "/moved")
with open("text", "a+") as f:
    f.write("end\n")
    f.seek(0)
    assert f.read().endswith("end\n")
END`)

	m.stop()
	m.start(args...)
	script(t, d, "after a remount", `
		/usr/bin/python3 check.py
		git -C repo fsck --strict 2>&1 && test -z "$(git -C repo status --porcelain)" && git -C origin.git fsck 2>&1
		git clone -q origin.git again && test "$(git -C again rev-parse HEAD)" = "$(git -C repo rev-parse HEAD)"
		test "$(sqlite3 db 'pragma integrity_check')" = ok
		make -q -C c && diff -r "$SRC" untarred && cmp odd odd2 && cmp sparse sparse2`)
}

// script runs one in a directory of the mount, with a place beside it in
// TMP and a tree in SRC; it must print nothing.
func script(t *testing.T, dir, name, text string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		src, err := filepath.Abs("../fs")
		must(t, err)
		cmd := exec.Command("bash", "-c", "set -e -o pipefail\n"+text)
		cmd.Dir = dir
		home := t.TempDir()
		cmd.Env = append(os.Environ(), "TMP="+home, "SRC="+src, "HOME="+home, "LC_ALL=C.UTF-8", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "" {
			t.Errorf("%v\n%s", err, lastLines(string(out), 30))
		}
	})
}
