"""The parser of tf.train.Example, against protobuf itself."""

from contextlib import suppress

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from laconic.data._example_proto import parse_example
from laconic.errors import DataError

Field = descriptor_pb2.FieldDescriptorProto


def example_class(*, packed):
    """The message class of tf.train.Example, from its definition."""
    file = descriptor_pb2.FileDescriptorProto(name=f"example_{packed}.proto", package=f"p{packed}", syntax="proto3")

    def message(owner, name, *fields):
        added = owner.add(name=name)
        for number, (field_name, label, kind, type_name) in enumerate(fields, 1):
            field = added.field.add(name=field_name, number=number, label=label, type=kind)
            if type_name:
                field.type_name = f".{file.package}.{type_name}"
            elif kind != Field.TYPE_BYTES and kind != Field.TYPE_STRING:
                field.options.packed = packed
        return added

    one, many = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
    message(file.message_type, "BytesList", ("value", many, Field.TYPE_BYTES, None))
    message(file.message_type, "FloatList", ("value", many, Field.TYPE_FLOAT, None))
    message(file.message_type, "Int64List", ("value", many, Field.TYPE_INT64, None))
    lists = [(f"{name.lower()}_list", one, Field.TYPE_MESSAGE, f"{name}List") for name in ("Bytes", "Float", "Int64")]
    kinds = message(file.message_type, "Feature", *lists)
    kinds.oneof_decl.add(name="kind")
    for field in kinds.field:
        field.oneof_index = 0
    features = message(file.message_type, "Features", ("feature", many, Field.TYPE_MESSAGE, "Features.FeatureEntry"))
    entry = message(
        features.nested_type,
        "FeatureEntry",
        ("key", one, Field.TYPE_STRING, None),
        ("value", one, Field.TYPE_MESSAGE, "Feature"),
    )
    entry.ClearField("field")
    entry.field.add(name="key", number=1, label=one, type=Field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=Field.TYPE_MESSAGE, type_name=f".{file.package}.Feature")
    entry.options.map_entry = True
    message(file.message_type, "Example", ("features", one, Field.TYPE_MESSAGE, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Example"))


CLASSES = {packed: example_class(packed=packed) for packed in (True, False)}

features = st.dictionaries(
    st.text(max_size=8),
    st.one_of(
        st.tuples(st.just("bytes_list"), st.lists(st.binary(max_size=200), max_size=4)),
        st.tuples(st.just("float_list"), st.lists(st.floats(width=32, allow_nan=False), max_size=50)),
        st.tuples(st.just("int64_list"), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)),
    ),
    max_size=4,
)


def serialized(values, *, packed):
    """What protobuf makes of the features."""
    example = CLASSES[packed]()
    for name, (kind, items) in values.items():
        getattr(example.features.feature[name], kind).value.extend(items)
    return example.SerializeToString()


@given(values=features, packed=st.booleans())
def test_reads_what_protobuf_writes(values, packed):
    """Every feature of every kind comes back, packed or not."""
    parsed = parse_example(serialized(values, packed=packed))
    assert parsed.keys() == values.keys()
    for name, (kind, items) in values.items():
        if len(items) and kind != "bytes_list":
            assert parsed[name].dtype == {"float_list": np.float32, "int64_list": np.int64}[kind]
        assert list(parsed[name]) == items


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(message):
    """Nothing but a DataError comes of bytes that are no Example."""
    with suppress(DataError):
        parse_example(message)


@given(values=features, cut=st.integers(1, 1000))
def test_cut_messages_are_read_or_refused(values, cut):
    """Nothing but a DataError comes of a message that ends early."""
    message = serialized(values, packed=True)
    with suppress(DataError):
        parse_example(message[: -min(cut, len(message)) or None])


def test_unknown_fields_are_skipped():
    """A later version of the format, with more fields, can be read."""
    known = serialized({"label": ("int64_list", [3])}, packed=True)
    unknown = b"\x50\x96\x01" + b"\x59" + bytes(8) + b"\x65" + bytes(4) + b"\x6a\x02ab"  # fields 10 to 13
    assert parse_example(unknown + known + unknown)["label"].tolist() == [3]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x0a\x05ab", "ends at byte 7 of a message of 4 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x0a" + b"\xff" * 11, "has no end"),
        (b"\x0a\x09\x0a\x07\x12\x05\x12\x03\x0a\x01a", "multiple of 4 bytes"),
        (b"\x0a\x05\x0a\x03\x0a\x01\xff", "not UTF-8"),
        (b"\x02\x00", "field 0"),
    ],
)
def test_malformed_messages(message, reason):
    """The error says what is wrong, and where."""
    with pytest.raises(DataError, match=reason):
        parse_example(message)
