"""What a clerk types, in MongoDB: each patient is found, and nobody else."""

from collections.abc import AsyncIterator

import pytest

from services.embedded.mongod import EmbeddedMongod
from services.index.indexer import Indexer
from tests.real.query_stage import QueryStage, open_query_stage
from tests.real.test_study_filters import record

NAMES = {
    "LUK": "Łukasiewicz^Jan",
    "SOR": "Sørensen^Søren",
    "DAN": "Đặng^Văn Minh",
    "NGU": "Nguyễn^Thị Hoa",
    "BJO": "Björk^Bjørn",
    "ISI": "Işık^Ayşe",
    "INA": "İnan^İbrahim",
    "MUE": "Müller^Jörg",
    "ML2": "Mueller^Ilse",
    "WEI": "Weiß^Ärne",
    "THO": "Þórðarson^Jón",
    "AEB": "Æbelø^Åse",
    "HAZ": "Ħaż-Żebbuġ^Ġorġ",
    "COE": "Lefebvre^Cœur",
    "ON1": "O'Neill^Sean",
    "ON2": "O’Neill^Mary",
    "ON3": "ONeill^Peter",
    "DAR": "d'Artagnan^Charles",
    "VDB": "van der Berg^Klaas",
    "VAN": "Vanderberg^Piet",
    "BER": "Bergmann^Hans",
    "CRU": "De la Cruz^Juan",
    "MAC": "MacDonald^Ron",
    "MA2": "Mac Donald^Flora",
    "STJ": "St. John^Ann",
    "SCH": "Schmidt-Lüdenscheidt^Eva",
    "SC2": "Schmidt^Anne Marie",
    "YAM": "Yamada^Kenji=山田^健二=やまだ^けんじ",
    "YA2": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "YAJ": "ﾔﾏｼﾀ^ｹﾝ",
    "HON": "Hong^Gildong=洪^吉洞=홍^길동",
    "WAN": "王^小东",
    "WA2": "Wang^XiaoDong=王^小東",
    "YOL": "Ёлкин^Пётр",
    "PAP": "Παπαδόπουλος^Γιώργος",
    "AHM": "أحمد^محمد",
    "ALI": "علی^رضا",
    "KUM": "कुमार^राज",
    "SOM": "สมชาย^ใจดี",
    "HUB": "Huber^Maria",
    "HU2": "Hubert^Maria",
}
"""Names by PatientID."""

QUERIES: dict[str, str] = {
    # Letters without decomposition.
    "lukasiewicz": "LUK", "łukasiewicz": "LUK", "ŁUKASIEWICZ": "LUK", "lukas": "LUK",
    "sorensen": "SOR", "soren": "SOR", "soeren": "SOR", "sørensen": "SOR",
    "soerensen soeren": "SOR",
    "dang": "DAN", "đặng": "DAN", "dang van minh": "DAN", "đặng minh": "DAN",
    "nguyen": "NGU", "nguyễn thị": "NGU", "hoa nguyen": "NGU",
    "bjorn": "BJO", "bjoern": "BJO", "bjork": "BJO", "björk bjørn": "BJO",
    "isik": "ISI", "ışık": "ISI", "ayse isik": "ISI", "IŞIK": "ISI",
    "inan": "INA", "ibrahim": "INA", "İNAN": "INA",
    "thordarson": "THO", "þórðarson": "THO", "jon thordarson": "THO",
    "aebelo": "AEB", "æbelø": "AEB", "ase aebelo": "AEB", "aase": "AEB",
    "haz zebbug": "HAZ", "hazzebbug": "HAZ", "zebbug gorg": "HAZ",
    "coeur": "COE", "cœur": "COE",
    # Umlauts both ways.
    "müller": "MUE ML2", "mueller": "MUE ML2", "muller jorg": "MUE", "joerg": "MUE",
    "weiss": "WEI", "weiß": "WEI", "WEISS aerne": "WEI",
    # Apostrophes.
    "oneill": "ON1 ON2 ON3", "o'neill": "ON1 ON2 ON3", "o’neill": "ON1 ON2 ON3",
    "O`Neill": "ON1 ON2 ON3", "sean o'neill": "ON1", "oneill mary": "ON2", "o´neill, peter": "ON3",
    "dartagnan": "DAR", "d’artagnan": "DAR", "artagnan": "DAR",
    # Particles.
    "van der berg": "VDB VAN", "vanderberg": "VDB VAN", "vander berg": "VDB VAN",
    "berg": "VDB BER", "van der berg klaas": "VDB", "vanderberg, piet": "VAN", "der berg": "VDB",
    "delacruz": "CRU", "de la cruz": "CRU", "cruz juan": "CRU",
    "macdonald": "MAC MA2", "mac donald": "MAC MA2", "st john": "STJ", "stjohn": "STJ",
    # Hyphens and double names.
    "schmidt-lüdenscheidt": "SCH", "schmidt lüdenscheidt": "SCH", "luedenscheidt": "SCH",
    "schmidtludenscheidt": "SCH", "schmidt": "SCH SC2", "anne-marie": "SC2", "annemarie": "SC2",
    # Chinese, Japanese, Korean.
    "山田": "YAM YA2", "山田健二": "YAM", "山田 健二": "YAM", "山田　太郎": "YA2", "健二": "YAM",
    "やまだ": "YAM YA2", "ヤマダ": "YAM YA2", "ﾔﾏﾀﾞ": "YAM YA2", "ヤマダケンジ": "YAM",
    "やました": "YAJ", "yamada kenji": "YAM", "kenji": "YAM",
    "홍길동": "HON", "홍 길동": "HON", "洪吉洞": "HON", "길동": "HON", "gildong hong": "HON",
    "王小东": "WAN", "王 小东": "WAN", "王小東": "WA2", "王": "WAN WA2",
    # Other scripts.
    "елкин": "YOL", "ЁЛКИН": "YOL", "петр": "YOL",
    "παπαδοπουλος": "PAP", "ΠΑΠΑΔΌΠΟΥΛΟΣ": "PAP", "احمد": "AHM", "محمد أحمد": "AHM", "علي": "ALI",
    "कुमार": "KUM", "สมชาย": "SOM",
    # Beginnings of words, word order, and nobody.
    "hub": "HUB HU2", "hubert": "HU2", "maria hub": "HUB HU2", "huber maria": "HUB HU2",
    "uber": "", "huber anna": "", "van den berg": "", "neil armstrong": "",
}  # fmt: skip


@pytest.fixture(scope="module")
async def stage(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[QueryStage]:
    """One for all tests of this module: they only read."""
    async with open_query_stage(mongodb, tmp_path_factory.mktemp("clerk")) as opened:
        await Indexer(opened.runtime.database).index(
            [
                record(number, patient=patient, name=name)
                for number, (patient, name) in enumerate(NAMES.items())
            ]
        )
        yield opened


@pytest.mark.parametrize("typed", QUERIES)
async def test_a_clerk_finds_the_patients_and_nobody_else(stage: QueryStage, typed: str) -> None:
    data = await stage.data(
        """query ($typed: String!) {
          patients(first: 50, filter: {patientName: $typed}) { nodes { patientID } totalCount }
          byName: studies(first: 50, filter: {patientName: $typed}) {
            nodes { patient { patientID } } }
          byText: studies(first: 50, filter: {text: $typed}) { nodes { patient { patientID } } }
        }""",
        typed=typed,
    )
    expected = set(QUERIES[typed].split())
    assert {one["patientID"] for one in data["patients"]["nodes"]} == expected
    assert data["patients"]["totalCount"] == len(expected)
    assert {one["patient"]["patientID"] for one in data["byName"]["nodes"]} == expected
    assert {one["patient"]["patientID"] for one in data["byText"]["nodes"]} == expected


@pytest.mark.parametrize("typed", ["weiß", "van der berg", "山田健二", "o’neill"])
async def test_searches_are_answered_by_the_index_of_words(stage: QueryStage, typed: str) -> None:
    query = "query ($typed: String!) { studies(filter: {text: $typed}) { nodes { id } } }"
    (asked,) = await stage.asked(query, typed=typed)
    assert asked.plan.startswith("IXSCAN { searchWords: 1")


def test_the_queries_are_no_fewer_than_were_measured() -> None:
    assert len(QUERIES) >= 99
