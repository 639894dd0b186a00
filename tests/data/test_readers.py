"""The readers of files: the same images whatever the format, and one sentence for whatever is wrong."""

import json
import lzma
import pickle
import random
import sqlite3
import threading
import zlib
from contextlib import closing

import msgpack
import numpy as np
import pytest

from laconic import data
from laconic.errors import ArgumentError, DataError, LaconicError, MissingExtraError, NotAvailableError

FORMATS = ["tff", "tff archive", "fedjax", "leaf", "npz"]
READERS = {
    "tff": lambda path: data.tff_sqlite(path)[0],
    "tff archive": lambda path: data.tff_sqlite(path)[0],
    "fedjax": data.fedjax_sqlite,
    "leaf": data.leaf,
    "npz": lambda path: data.npz(path)[0],
}


def assert_same(clients, expected):
    """The clients have the expected examples, in the canonical form."""
    assert clients.client_ids == tuple(sorted(expected))
    for client_id, examples in expected.items():
        actual = clients[client_id]
        assert set(actual) == {"x", "y"}
        for name, array in examples.items():
            assert actual[name].dtype == array.dtype
            np.testing.assert_array_equal(actual[name], array)
        assert clients.known_num_examples(client_id) == len(examples["y"])


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_the_same_images(kind, files, writers):
    """Every reader renames to x and y, scales to [0, 1] and shapes to 28 by 28."""
    assert_same(READERS[kind](files[kind]), writers["train"])


@pytest.mark.parametrize("kind", ["tff", "tff archive", "npz"])
def test_load_reads_both_splits(kind, files, writers):
    """A file that has test examples gives those, and its format is recognised by its content."""
    renamed = files[kind].rename(files[kind].with_name("anything"))
    train, test = data.load(renamed)
    assert_same(train, writers["train"])
    assert_same(test, writers["test"])


@pytest.mark.parametrize("kind", ["fedjax", "leaf"])
def test_load_holds_out_examples(kind, files, writers):
    """A file of one split is divided by client, the same way each time."""
    renamed = files[kind].rename(files[kind].with_name("anything"))
    train, test = data.load(renamed, test_fraction=0.25, seed=3)
    assert [train.num_examples(i) for i in train] == [4, 1, 9]
    assert test.client_ids == ("a", "c")
    expected, _ = data.from_arrays(writers["train"]).hold_out(0.25, seed=3)
    assert_same(train, {i: expected[i] for i in expected})


@pytest.mark.parametrize("names", [("train.json", "test.json"), ("train/one.json", "test/one.json")])
def test_load_reads_leaf_directories(names, files, writers, tmp_path):
    """LEAF's training and test files are found beside each other, or in directories."""
    for name in names:
        path = tmp_path / "pair" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files["leaf"].read_bytes())
    train, test = data.load(tmp_path / "pair")
    assert_same(train, writers["train"])
    assert_same(test, writers["train"])


def test_leaf_files_of_different_users_add_up(files, tmp_path):
    """A directory is one data set; a user in two files is an error."""
    content = json.loads(files["leaf"].read_text())
    for user, count in zip(content["users"], content["num_samples"], strict=True):
        part = {"users": [user], "num_samples": [count], "user_data": {user: content["user_data"][user]}}
        (tmp_path / f"{user}.json").write_text(json.dumps(part))
    assert data.leaf(tmp_path).client_ids == ("a", "b", "c")
    (tmp_path / "d.json").write_bytes((tmp_path / "a.json").read_bytes())
    with pytest.raises(DataError, match=r"d.json is damaged .*user 'a' is in another file"):
        data.leaf(tmp_path)


def test_leaf_vectors_stay_vectors(tmp_path):
    """Inputs that are not 784 numbers are no images."""
    content = {"users": ["a"], "num_samples": [2], "user_data": {"a": {"x": [[1, 2, 3], [4, 5, 6]], "y": [0, 1]}}}
    (tmp_path / "synthetic.json").write_text(json.dumps(content))
    examples = data.leaf(tmp_path / "synthetic.json")["a"]
    assert examples["x"].shape == (2, 3)
    assert examples["x"].dtype == np.float32


# --- the real samples


def test_samples_hold_the_same_writers(samples):
    """Images and labels of the TFF, the FedJAX and the npz sample are equal to the bit, writer by writer."""
    train, test = data.load(samples / "femnist_digits.npz")
    tff_train, tff_test = data.load(samples / "tff_emnist_sample.sqlite.lzma")
    assert (len(train), len(test), len(tff_train), len(tff_test)) == (290, 290, 24, 24)
    assert_same(tff_train, {i: train[i] for i in tff_train})
    assert_same(tff_test, {i: test[i] for i in tff_test})
    fedjax = data.fedjax_sqlite(samples / "fedjax_emnist_sample_train.sqlite")
    assert_same(fedjax, {i: train[i] for i in tff_train})


def test_sample_statistics(samples):
    """The npz sample has the published numbers of writers and images."""
    train, test = data.load(samples / "femnist_digits.npz")
    assert str(train.statistics()) == "290 clients, 29,205 examples; per client: min 1, median 108, mean 100.7, max 121"
    assert test.statistics().examples == 3_313
    images = train["f1255_13"]["x"]
    assert (images.min(), images.max(), np.median(images)) == (0.0, 1.0, 1.0)  # mostly background


def test_leaf_sample_holds_the_same_digits(samples):
    """The digits of a writer in LEAF's files are that writer's images elsewhere, and repeated images are kept."""
    train, test = data.load(samples / "leaf")
    digits, held_out = data.npz(samples / "femnist_digits.npz")
    shared = sorted(set(train) & set(digits))
    assert len(shared) == 4
    for writer in shared:
        known = labelled_images(digits[writer]) | labelled_images(held_out[writer])
        raw = {name: np.concatenate([train[writer][name], test[writer][name]]) for name in ("x", "y")}
        is_digit = raw["y"] < 10
        assert labelled_images({name: array[is_digit] for name, array in raw.items()}) == known
        assert raw["y"].max() > 35  # all 62 classes
    repeated = train["f1941_44"]["x"]
    np.testing.assert_array_equal(repeated[0], repeated[1])


def labelled_images(examples):
    """Images and labels as a set."""
    return {(x.tobytes(), int(y)) for x, y in zip(examples["x"], examples["y"], strict=True)}


# --- use from several threads and processes


@pytest.mark.parametrize("kind", ["tff", "fedjax"])
def test_clients_load_from_any_thread(kind, files, writers):
    """Threads that load at the same time each get what they asked for."""
    clients, failures = READERS[kind](files[kind]), []

    def load():
        for _ in range(20):
            for client_id, examples in writers["train"].items():
                if not np.array_equal(clients[client_id]["x"], examples["x"]):
                    failures.append(client_id)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("kind", ["tff", "fedjax"])
def test_clients_can_be_sent_to_another_process(kind, files, writers):
    """What travels is where the file is, not an open file."""
    assert_same(pickle.loads(pickle.dumps(READERS[kind](files[kind]))), writers["train"])


# --- what can be wrong


@pytest.mark.parametrize("read", [data.load, *READERS.values()])
def test_missing_files(read, tmp_path):
    """A path that leads nowhere is named."""
    with pytest.raises(NotAvailableError, match=r"nothing.npz does not exist; expected .* check the path"):
        read(tmp_path / "nothing.npz")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_truncated_files(kind, kept, files):
    """A file that ends early is named in a DataError, when it is opened or at the latest when its clients are read."""
    content = files[kind].read_bytes()
    files[kind].write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=rf"{files[kind].name}\b.* is damaged or is not .*fetch the file again"):
        read_all(data.load(files[kind])[0])
    with pytest.raises(DataError, match=rf"{files[kind].name}\b"):
        read_all(READERS[kind](files[kind]))


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files(kind, files):
    """Whatever byte is wrong, either all clients are read or a LaconicError says so; nothing else comes through."""
    content, generator = files[kind].read_bytes(), random.Random(0)
    refused = 0
    for _ in range(40):
        damaged = bytearray(content)
        # Half of the damage goes where the structure is, at either end.
        near = generator.choice([len(content), 200])
        position = generator.randrange(min(near, len(content))) * generator.choice([1, -1])
        damaged[position] ^= generator.randrange(1, 256)
        files[kind].write_bytes(damaged)
        try:
            read_all(READERS[kind](files[kind]))
        except LaconicError:
            refused += 1
    assert refused > 0


def read_all(clients):
    """Loads every client."""
    for client_id in clients:
        clients.load(client_id)


@pytest.mark.parametrize("kind", FORMATS)
def test_wrong_format(kind, tmp_path):
    """Each reader refuses a text file, naming it and what it expected."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, this is not a data set.")
    expected = {"leaf": "LEAF", "npz": "npz"}.get(kind, "SQLite")
    with pytest.raises(DataError, match=rf"letter.txt is damaged or is not .*{expected}"):
        READERS[kind](path)


def test_unknown_format(tmp_path):
    """`load` lists the formats that it knows."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, this is not a data set.")
    with pytest.raises(DataError, match=r"letter.txt is of no known format; expected SQLite of TFF.*LEAF.*npz"):
        data.load(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no file \*.json"):
        data.load(tmp_path / "empty")


def test_splits_of_tff_files(files):
    """A split that is not there, or a format without splits, is refused, and the error lists what there is."""
    with pytest.raises(ArgumentError, match=r"digits_only_test', 'digits_only_train'\]; got 'all'"):
        data.load(files["tff"], split="all")
    with pytest.raises(ArgumentError, match=r"split can only be chosen in a SQLite file of TFF, .* got 'all'"):
        data.load(files["npz"], split="all")
    assert len(data.load(files["tff"], split="digits_only")[0]) == 3


def test_the_only_split_is_the_default(files):
    """A TFF file of one pair of splits needs no choice."""
    change(files["tff"], "UPDATE client_metadata SET split_name = replace(split_name, 'digits_only', 'all')")
    change(files["tff"], "UPDATE examples SET split_name = replace(split_name, 'digits_only', 'all')")
    assert len(data.load(files["tff"])[0]["c"]["y"]) == 12


def change(path, statement, *parameters):
    """Changes a SQLite file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, parameters)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DROP TABLE examples", "no such table: examples"),
        ("DELETE FROM client_metadata", "lists no clients"),
        ("DELETE FROM examples WHERE client_id = 'b'", "promises 1 examples, got 0"),
        ("INSERT INTO client_metadata SELECT * FROM client_metadata", "twice"),
        ("UPDATE client_metadata SET num_examples = 'many'", "with 'many' examples"),
        ("UPDATE examples SET serialized_example_proto = x'0a05ab'", "ends at byte 7"),
        ("UPDATE examples SET serialized_example_proto = x''", "784 floats named pixels; it has no features"),
        ("UPDATE examples SET serialized_example_proto = 7", "Type.*Error"),
    ],
)
def test_malformed_tff_files(statement, reason, files):
    """What is wrong inside a TFF file is in the message."""
    change(files["tff"], statement)
    with pytest.raises(DataError, match=rf"tff.sqlite\b.* is damaged or is not a SQLite file of TFF.*{reason}"):
        read_all(data.tff_sqlite(files["tff"])[0])


def packed(fields):
    """A FedJAX blob of anything."""
    return zlib.compress(msgpack.packb(fields))


def array(*content, code=1):
    """A msgpack extension that claims to be an array."""
    return msgpack.ExtType(code, msgpack.packb(content))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pixels": array([1], "float32", bytes(4))}, r"must have inputs \(x or pixels\) and labels"),
        ({"pixels": array([1], "O", bytes(8))}, "dtype of an array must be one of .* got 'O'"),
        ({"pixels": array([2**40], "float32", bytes(4))}, "does not have the bytes that it needs"),
        ({"pixels": array([-1, -1], "float32", bytes(4))}, "shape of an array must be a list of sizes"),
        ({"pixels": array([], "float32", bytes(4))}, "does not have the bytes"),
        ({"pixels": array([1], "float32", "text")}, "does not have the bytes"),
        ({"pixels": array([1], "float32", bytes(4), code=3)}, "extension type 3"),
        ({"pixels": 1.5}, "not a dict of arrays"),
        ([1, 2], "not a dict of arrays"),
        ({"x": array([1], "float32", b"\x00\x00\xc0\x7f"), "y": array([1], "int32", bytes(4))}, "NaN"),
        ({"x": array([2], "float32", bytes(8)), "y": array([1], "int32", bytes(4))}, "same number of rows"),
        ({"x": array([2], "float32", bytes(8)), "y": array([2], "int32", bytes(8))}, "promises 1 examples, got 2"),
    ],
)
def test_malformed_fedjax_blobs(fields, reason, files):
    """What is wrong inside a blob is in the message, beside the client's id."""
    change(files["fedjax"], "UPDATE federated_data SET data = ? WHERE client_id = ?", packed(fields), b"b")
    with pytest.raises(DataError, match=rf"fedjax.sqlite, client 'b', is damaged or is not a FedJAX.*{reason}"):
        data.fedjax_sqlite(files["fedjax"])["b"]


def test_fedjax_bomb(files, monkeypatch):
    """A blob that expands beyond measure is refused before it has."""
    monkeypatch.setattr("laconic.data._fedjax_sqlite._LARGEST_CLIENT", 10_000)
    with pytest.raises(DataError, match=r"expands to more than 10000 bytes"):
        data.fedjax_sqlite(files["fedjax"])["c"]


def test_fedjax_needs_msgpack(files, monkeypatch):
    """Without msgpack the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    with pytest.raises(MissingExtraError, match=r"FedJAX's SQLite files needs 'msgpack'.*laconic\[data\]"):
        data.load(files["fedjax"])


@pytest.mark.parametrize(
    ("change_content", "reason"),
    [
        (lambda content: content.pop("num_samples"), "object with the keys"),
        (lambda content: content["users"].append("d"), "about the same users"),
        (lambda content: content.update(users=[], user_data={}, num_samples=[]), "at least one"),
        (lambda content: content["num_samples"].__setitem__(0, 6), "promises 6 examples of user 'a', got 5"),
        (lambda content: content["user_data"]["a"]["x"][0].pop(), "inhomogeneous"),
        (lambda content: content["user_data"]["a"].update(x=["text"] * 5), "could not convert string"),
        (lambda content: content["user_data"]["a"].update(y=["text"] * 5), "array of numbers"),
        (lambda content: content["user_data"]["a"].update(y=[10**30] * 5), "array of numbers"),
        (lambda content: content["user_data"]["a"]["x"][0].__setitem__(0, float("nan")), "NaN"),
        (lambda content: content["user_data"]["a"].pop("y"), "KeyError: 'y'"),
    ],
)
def test_malformed_leaf_files(change_content, reason, files):
    """What is wrong inside a LEAF file is in the message."""
    content = json.loads(files["leaf"].read_text())
    change_content(content)
    files["leaf"].write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"leaf.json is damaged or is not a LEAF.*{reason}"):
        data.leaf(files["leaf"])


def test_deeply_nested_json(tmp_path):
    """JSON that is nested beyond measure is refused."""
    (tmp_path / "deep.json").write_text('{"users": ' + "[" * 100_000)
    with pytest.raises(DataError, match=r"deep.json is damaged"):
        data.leaf(tmp_path / "deep.json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": None}, r"the arrays \['label'\] are missing"),
        ({"label": np.zeros(3, np.uint8)}, "beside 3 labels"),
        ({"pixels": np.array([None])}, "pickle"),
        ({"client": np.full(24, 7, np.int32)}, "values from 7 to 7, but there are 3"),
        ({"client_ids": np.array(["a", "a", "b"])}, "different strings"),
        ({"is_test": np.zeros(24, bool)}, "no test examples"),
        ({"is_test": np.zeros(24, np.uint8)}, r"is_test is uint8\[24\]"),
    ],
)
def test_malformed_npz_files(changes, reason, files):
    """What is wrong inside an npz file is in the message, and nothing is unpickled."""
    with np.load(files["npz"]) as arrays:
        content = {name: array for name, array in ({**arrays} | changes).items() if array is not None}
    np.savez(files["npz"], **content)
    with pytest.raises(DataError, match=rf"digits.npz is damaged or is not an .npz.*{reason}"):
        data.npz(files["npz"])


def test_archives_are_unpacked_once(files, cache_directory, tmp_path):
    """The decompressed file is kept by content; what was interrupted or damaged leaves nothing behind."""
    data.tff_sqlite(files["tff archive"])
    (database,) = cache_directory.glob("*.sqlite")
    assert database.read_bytes() == files["tff"].read_bytes()
    made = database.stat().st_mtime_ns
    data.tff_sqlite(files["tff archive"])
    assert database.stat().st_mtime_ns == made
    data.tff_sqlite(files["tff archive"], cache_dir=tmp_path / "elsewhere")
    assert len(list((tmp_path / "elsewhere").glob("*.sqlite"))) == 1


def test_damaged_archives_leave_nothing(files, cache_directory):
    """Half a file never passes for a whole one."""
    files["tff archive"].write_bytes(files["tff archive"].read_bytes()[:-500])
    with pytest.raises(DataError, match=r"lzma is damaged"):
        data.tff_sqlite(files["tff archive"])
    assert list(cache_directory.glob("*.sqlite")) == list(cache_directory.glob("*.tmp")) == []


def test_archives_of_something_else(tmp_path):
    """An archive that holds no SQLite file is refused."""
    (tmp_path / "letter.lzma").write_bytes(lzma.compress(b"Dear reader"))
    with pytest.raises(DataError, match=r"letter.lzma is damaged .*it does not hold a SQLite file"):
        data.load(tmp_path / "letter.lzma")


def test_caches_that_cannot_be_written(files, tmp_path):
    """The error says how to choose another place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotAvailableError, match=r"cannot be written .* cache_dir or LACONIC_CACHE"):
        data.tff_sqlite(files["tff archive"], cache_dir=tmp_path / "file")
