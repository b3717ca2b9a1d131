"""The reader of pickles: what pickle writes, several in one file, and programs that are refused."""

import ctypes
import io
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import hypothesis
import hypothesis.extra.numpy as hypothesis_numpy
import numpy as np
import pytest
from hypothesis import strategies as st

from structdl.datasets import planetoid
from structdl.datasets.pickles import Global, read_pickle
from structdl.errors import InputError

LITERALS = (
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
)
ARRAYS = hypothesis_numpy.arrays(
    st.sampled_from(["?", "<i4", ">i4", "<u8", "i1", ">f2", "<f8", ">f4"]),
    hypothesis_numpy.array_shapes(min_dims=0, min_side=0, max_side=3),
)
VALUES = st.recursive(
    st.one_of(*LITERALS, ARRAYS, ARRAYS.map(np.asfortranarray)),
    lambda values: st.one_of(
        st.lists(values, max_size=4),
        st.lists(values, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), values, max_size=4),
    ),
    max_leaves=8,
)


def read(content, constructors=None, **options):
    return read_pickle(io.BytesIO(content), "a file", constructors, **options)


def check_equal(value, expected):
    assert type(value) is type(expected)
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(value, expected)
        assert value.dtype == expected.dtype
        assert value.flags.writeable
    elif isinstance(expected, dict):
        assert list(value) == list(expected)
        check_equal([*value.values()], [*expected.values()])
    elif isinstance(expected, (list, tuple)):
        for ours, theirs in zip(value, expected, strict=True):
            check_equal(ours, theirs)
    else:
        assert value == expected


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_what_pickle_writes(protocol):
    @hypothesis.given(VALUES)
    def check(value):
        check_equal(read(pickle.dumps([value, value], protocol)), [value, value])

    check()


def test_one_pickle_after_another_with_persistent_ids():
    """The shape of torch's files: pickles in a row, storages by persistent ids, raw bytes last."""

    class Storage:
        def __init__(self, key):
            self.key = key

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", OrderedDict, value.key) if isinstance(value, Storage) else None

    weights = OrderedDict(kernel=Storage("0"), bias=[Storage("1"), Storage("0")])
    weights.metadata = {"version": 1}  # as torch's state dicts have it
    file = io.BytesIO()
    pickle.dump(1001, file, 2)
    Pickler(file, 2).dump(weights)
    file.write(b"raw bytes")
    file.seek(0)
    asked = []
    options = {
        "constructors": {"collections OrderedDict": dict},
        "persistent_load": lambda key: asked.append(key) or f"storage {key[2]}",
    }
    assert read_pickle(file, "a file", **options) == 1001
    assert read_pickle(file, "a file", **options) == {
        "kernel": "storage 0",
        "bias": ["storage 1", "storage 0"],
    }
    assert file.read() == b"raw bytes"
    assert asked[1] == ("storage", Global("collections OrderedDict"), "1")


# A program is a sum of these.
NONE, TRUE, FALSE, MARK, TUPLE, BUILD, REDUCE = b"N", b"\x88", b"\x89", b"(", b"t", b"b", b"R"
NEWOBJ, STOP, NDARRAY = b"\x81", b".", b"cnumpy\nndarray\n"


def integer(value):
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def string(text):
    return b"T" + struct.pack("<i", len(text)) + text.encode("latin-1")


def tuple_of(*items):
    return MARK + b"".join(items) + TUPLE


def put(place):
    return b"r" + struct.pack("<I", place)


def get(place):
    return b"j" + struct.pack("<I", place)


def nested(depth):
    """A tuple of two references to a tuple of two references, and so on: takes 2^depth to hash."""
    return b")" + b"".join(put(i) + get(i) + b"\x86" for i in range(depth))


def dtype(name, *state):
    made = b"cnumpy\ndtype\n" + tuple_of(name, FALSE, TRUE) + REDUCE
    return made + (tuple_of(*state) + BUILD if state else b"")


def dtype_state(order="<", subtype=NONE, names=NONE, fields=NONE, size=-1, flags=0):
    sizes = integer(size), integer(-1), integer(flags)
    return integer(3), string(order), subtype, names, fields, *sizes


INT32 = dtype(string("i4"), *dtype_state())
OBJECT = dtype(string("O8"), *dtype_state("|", flags=63))
FIELDS = b"}" + string("x") + tuple_of(OBJECT, integer(0)) + b"s"
RECORD_STATE = dtype_state("|", names=tuple_of(string("x")), fields=FIELDS, size=8)
RECORD = dtype(string("V8"), *RECORD_STATE)


def unbuilt(kind=NDARRAY, module=b"numpy.core.multiarray"):
    arguments = tuple_of(kind, tuple_of(integer(0)), string("b"))
    return b"c" + module + b"\n_reconstruct\n" + arguments + REDUCE


def array(content, shape=(2,), kind=INT32):
    content = content if isinstance(content, bytes) else string(content.decode("latin-1"))
    shape = tuple_of(*map(integer, shape)) if isinstance(shape, tuple) else shape
    return unbuilt() + tuple_of(integer(1), shape, kind, FALSE, content) + BUILD


EIGHT = string("\1\0\0\0\2\0\0\0")


def test_the_parts_of_the_programs_below_are_allowed():
    assert read(array(EIGHT) + STOP).tolist() == [1, 2]
    assert read(nested(40) + STOP)
    assert read(b"}" + string("x") + nested(40) + b"s" + STOP).keys() == {"x"}


def matrix_of(data):
    """A csr_matrix [1, 1]."""
    indices = array(string("\0" * 4), (1,))
    indptr = array(string("\0\0\0\0\1\0\0\0"))
    shape = tuple_of(integer(1), integer(1))
    parts = {"_shape": shape, "data": data, "indices": indices, "indptr": indptr}
    items = b"".join(string(name) + value for name, value in parts.items())
    return b"cscipy.sparse.csr\ncsr_matrix\n)" + NEWOBJ + b"}" + MARK + items + b"u" + BUILD + STOP


def test_bytes_are_not_taken_for_an_object(tmp_path):
    """The array's bytes are the address of an object, whose __float__ astype(float32) calls."""
    calls = []

    class Planted:
        def __float__(self):
            calls.append(self)
            return 1.0

    planted = Planted()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(planted))  # an array would take it for its own
    address = struct.pack("<Q", id(planted)).decode("latin-1")
    path = tmp_path / "evil"
    path.write_bytes(matrix_of(array(string(address), (1,), RECORD)))
    with pytest.raises(InputError, match=r"evil: .*a dtype that is not a plain number or bool"):
        planetoid._read_features(path)
    assert not calls
    float32 = dtype(string("f4"), *dtype_state())
    path.write_bytes(matrix_of(array(string("\0\0\x80?"), (1,), float32)))
    assert planetoid._read_features(path).toarray() == [[1]]


NOT_PLAIN = [
    *(dtype(string(name)) for name in ("O", "O8", "V8", "S4", "U1", "M8[s]", "m8", "(2,)i4", "")),
    *(dtype(string(name)) for name in ("i4,O", "f16", "c8", "object", "i4" * 500)),
    *(dtype(name) for name in (b"}", b"]", NONE, nested(40), integer(7), b"cnumpy\nndarray\n")),
    RECORD,
    dtype(string("i4"), *RECORD_STATE),
    dtype(string("i4"), *dtype_state(subtype=tuple_of(OBJECT, tuple_of(integer(2))))),
    dtype(string("i4"), *dtype_state(size=1 << 40)),
    dtype(string("i4"), *dtype_state(flags=1)),
    dtype(string("i4"), *dtype_state(order="?")),
    dtype(string("i4"), integer(4), *dtype_state()[1:]),
]


@pytest.mark.parametrize("kind", NOT_PLAIN, ids=range(len(NOT_PLAIN)))
def test_other_dtypes_are_refused(kind):
    with pytest.raises(InputError, match="a dtype that is not a plain number or bool"):
        read(array(EIGHT, kind=kind) + STOP)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (array(EIGHT, (1 << 62, 4)), r"an array of \d+ bytes in 8"),
        (array(EIGHT, (3,)), "an array of 12 bytes in 8"),
        (array(EIGHT, (-1, -2)), "shape that is not a tuple of sizes"),
        (array(EIGHT, tuple_of(TRUE, integer(2))), "shape that is not a tuple of sizes"),
        (array(EIGHT, (2,) + (1,) * 40), "shape that is not a tuple of sizes"),
        (array(EIGHT, nested(40)), "shape that is not a tuple of sizes"),
        (array(string(""), (0, 1 << 60)), "an empty array with"),
        (array(b"]" + MARK + integer(1) + integer(2) + b"e"), "an array without bytes"),
        (array(EIGHT, kind=string("i4")), "an array without a dtype"),
        (array(string("\2" * 8), (8,), dtype(string("b1"), *dtype_state("|"))), "a bool beyond 1"),
        (unbuilt() + put(0) + tuple_of() + BUILD, "an array's state of another length"),
        (array(EIGHT) + NONE + BUILD, "a state of no object"),
        (unbuilt(b"cnumpy\ndtype\n"), "an array of another class"),
        (unbuilt(module=b"numpy.other"), "names numpy.other._reconstruct, which is not allowed"),
        (NDARRAY + tuple_of(tuple_of(integer(9))) + REDUCE, "a call of numpy ndarray"),
        (NDARRAY + b")" + NEWOBJ, "a call of numpy ndarray"),
        (b"cnumpy.core.multiarray\nscalar\n", "names numpy.core.multiarray.scalar"),
        (b"cnumpy\nfromfile\n", "names numpy.fromfile, which is not allowed"),
        (b"ccollections\nOrderedDict\n", "names collections.OrderedDict, which is not allowed"),
        (string("os") + string("system") + b"\x93", "names os.system, which is not allowed"),
        (nested(40) + string("system") + b"\x93", "a name that is not a string"),
        (string("print") + tuple_of() + REDUCE, "a call of no function"),
        (b"}" + nested(40) + NONE + b"s", "a key that is neither an int nor a string"),
        (b"}" + MARK + NONE + b"u", "an item of no dict"),
        (b"]" + b"}" + BUILD, "a state of no object"),
        (NONE + NONE + b"a", "an item of no list"),
        (string("0") + b"Q", "a persistent id"),
        (b"P0\n", "opcode PERSID is not allowed"),
        (b"\x82\x01", "opcode EXT1 is not allowed"),
        (MARK + b"ios\nsystem\n", "opcode INST is not allowed"),
        (b"\x96" + struct.pack("<Q", 1 << 40), "not allowed|bytes in a bytearray8"),
        (b"cos\\\nsystem\n", "in string"),
        (b"c\\q\nsystem\n", "names .q.system, which is not allowed"),
        (b"\x85", "a tuple of too few values"),
        (b"t", "pop from empty list"),
        (b"", "pop from empty list"),
        (b"\xff", "opcode b'.xff' unknown"),
    ],
)
def test_other_programs_are_refused(program, message):
    with pytest.raises(InputError, match=f"a file: not a readable pickle .*{message}"):
        read(program + STOP)


def lying(opcode, form, length):
    return opcode + struct.pack(form, length) + b"short"


@pytest.mark.parametrize(
    ("program", "refused"),
    [
        (NONE + put((1 << 32) - 1) + STOP, False),
        (lying(b"\x8e", "<Q", 1 << 33) + STOP, True),
        (lying(b"\x8d", "<Q", 1 << 33) + STOP, True),
        (lying(b"B", "<I", 1 << 31) + STOP, True),
        (lying(b"T", "<i", (1 << 31) - 1) + STOP, True),
        (lying(b"\x95", "<Q", 1 << 40) + STOP, True),
        # 30 arrays of one string in the memo
        (string("\0" * 40_000) + put(0) + array(get(0), (10_000,)) * 30 + STOP, True),
    ],
    ids=["memo", "bytes8", "unicode8", "bytes", "string", "frame", "arrays"],
)
def test_memory_is_bounded_by_the_size_of_the_file(tmp_path, program, refused):
    path = tmp_path / "bomb"
    path.write_bytes(program)
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            if refused:
                with pytest.raises(InputError, match="bomb: not a readable pickle"):
                    read_pickle(file, str(path))
            else:
                assert read_pickle(file, str(path)) is None
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


SNIPPETS = (
    *(NONE, MARK, TUPLE, BUILD, REDUCE, NEWOBJ, NDARRAY, EIGHT, INT32, OBJECT, RECORD, FIELDS),
    *(b"]", b"}", b")", b"a", b"e", b"s", b"u", b"\x85", b"\x86", b"\x87", b"\x93", b"Q", b"\x94"),
    *(put(0), get(0), put(1), get(1), integer(0), integer(-1), integer(1 << 62), string("i4")),
    *(tuple_of(*dtype_state()), tuple_of(*RECORD_STATE), unbuilt(), array(EIGHT)),
    *(b"cnumpy\ndtype\n", b"c__builtin__\nlist\n", b"ccollections\ndefaultdict\n", STOP),
    b"cscipy.sparse.csr\ncsr_matrix\n)" + NEWOBJ,
)


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.lists(st.one_of(st.sampled_from(SNIPPETS), st.binary(max_size=3))))
def test_any_program_returns_plain_data_or_is_refused(program):
    content = b"".join(program) + STOP
    try:
        value = read(content, planetoid._CONSTRUCTORS, persistent_load=lambda key: None)
    except InputError:
        return
    if isinstance(value, np.ndarray):
        assert value.dtype.kind in "biuf"
        assert value.nbytes <= len(content)
