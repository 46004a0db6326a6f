import pytest

from services.dicom.person_names import clean_person_name, display_name, names_agree


def test_component_groups_of_a_name_stay() -> None:
    assert clean_person_name(" Yamada ^Tarou ^^^ =山田^太郎=") == "Yamada^Tarou=山田^太郎"
    assert clean_person_name("^^^^") is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Huber^Maria", "HUBER^maria ", True),
        ("Huber^Maria", "Huber^Maria^^^", True),
        ("Huber  Lang^Maria", "huber lang^maria", True),
        ("M\u00fcller", "Mu\u0308ller", True),
        ("Wang^XiaoDong", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c", True),
        ("Wang^XiaoDong=\u738b", "Wang^XiaoDong=\u674e", False),
        ("Huber^Maria", "Attacker^Eve", False),
        ("Huber^Maria", None, True),
        ("", "Huber^Maria", True),
    ],
)
def test_names_of_one_person_agree(one: str | None, other: str | None, *, expected: bool) -> None:
    assert names_agree(one, other) is expected
    assert names_agree(other, one) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Yamada^Tarou=山田^太郎", "Tarou Yamada (山田 太郎)"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Tarou Yamada (山田 太郎)"),
        ("=山田^太郎", "山田 太郎"),
        # East Asian names read family name first in every group.
        ("王^小东", "王 小东"),
        ("王^小东=王^小东", "王 小东"),
        ("欧阳^娜娜^^^博士", "欧阳 娜娜 博士"),
        ("Wang^XiaoDong=王^小東", "XiaoDong Wang (王 小東)"),
        ("山田^太郎=山田^太郎=やまだ^たろう", "山田 太郎 (やまだ たろう)"),
        ("やまだ^たろう", "やまだ たろう"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "ﾔﾏﾀﾞ ﾀﾛｳ (山田 太郎)"),
        ("ヤマダ^タロウ", "ヤマダ タロウ"),
        ("김^희중", "김희중"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "Gildong Hong (홍길동)"),
        ("Hong^Gildong==홍^길동", "Gildong Hong (홍길동)"),
        ("홍^길동", "홍길동"),
        ("ㄨㄤˊ^ㄒㄧㄠˇ", "ㄨㄤˊ ㄒㄧㄠˇ"),
        ("𠮷田^花子", "𠮷田 花子"),
        ("홍길동", "홍길동"),
        ("홍 길동", "홍 길동"),
        ("남궁^민수^^^박사", "남궁민수 박사"),
        ("洪^吉洞=洪^吉洞=홍^길동", "洪 吉洞 (홍길동)"),
        ("Kim^Hee Jung=김^희중", "Hee Jung Kim (김희중)"),
        ("陳^大文", "陳 大文"),
        ("CHAN^TAI MAN=陳^大文", "TAI MAN CHAN (陳 大文)"),
        ("諸葛^亮", "諸葛 亮"),
        ("王小东", "王小东"),
        ("WANG XIAODONG", "WANG XIAODONG"),
        ("wang^xiaodong=WANG^XIAODONG=王^小东", "xiaodong wang (王 小东)"),
        ("山田^太郎^^^様", "山田 太郎 様"),
        ("サトウ^ジョン=佐藤^ジョン", "サトウ ジョン (佐藤 ジョン)"),
        ("Smith^太郎", "太郎 Smith"),
        ("^太郎", "太郎"),
        ("ហ៊ុន^សែន", "ហ៊ុន សែន"),
        # Others read given name first.
        ("Nguyễn^Văn An", "Văn An Nguyễn"),
        ("Иванова^Мария^Петровна", "Мария Петровна Иванова"),
        ("Παπαδόπουλος^Γιώργος", "Γιώργος Παπαδόπουλος"),
        ("שרון^דבורה", "דבורה שרון"),
        ("قباني^لنزار", "لنزار قباني"),
        ("สุขใจ^สมชาย", "สมชาย สุขใจ"),
        ("शर्मा^अनिता", "अनिता शर्मा"),
        ("Łukasiewicz^Żaneta", "Żaneta Łukasiewicz"),
        ("Çavuşoğlu^Gül", "Gül Çavuşoğlu"),
        ("Գրիգորյան^Անի", "Անի Գրիգորյան"),
        ("ბერიძე^ნინო", "ნინო ბერიძე"),
        ("van der Berg^Jan^^dr.", "dr. Jan van der Berg"),
        ("==やまだ^たろう", "やまだ たろう"),
        (
            "Adams^John Robert Quincy^^Rev.^B.A. M.Div.",
            "Rev. John Robert Quincy Adams, B.A. M.Div.",
        ),
        ("Doe^Jane^Mary", "Jane Mary Doe"),
        ("Doe^Jane^^^", "Jane Doe"),
        ("Doe^Jane^^^^^", "Jane Doe"),
        ("DOE, JANE", "DOE, JANE"),
        ("Doe^Jane=DOE^JANE", "Jane Doe"),
        ("Nagy^János", "János Nagy"),
        ("García Márquez^Gabriel José", "Gabriel José García Márquez"),
        ("Sigurðardóttir^Jóhanna", "Jóhanna Sigurðardóttir"),
        ("Oliveira e Silva^João^^Dr.^Filho", "Dr. João Oliveira e Silva, Filho"),
        ("O'Neill^Seán", "Seán O'Neill"),
        ("رضایی^علی", "علی رضایی"),
        ("Qabbani^Nizar=قباني^نزار", "Nizar Qabbani (نزار قباني)"),
        ("כהן^דוד^^ד״ר", "ד״ר דוד כהן"),
        ("சுப்ரமணியம்^லட்சுமி", "லட்சுமி சுப்ரமணியம்"),
        ("রহমান^শেখ", "শেখ রহমান"),
        ("ተስፋዬ^አበበ", "አበበ ተስፋዬ"),
        ("Sukarno", "Sukarno"),
        ("အောင်ဆန်းစုကြည်", "အောင်ဆန်းစုကြည်"),
        # Nothing of a name with too many carets is left out.
        (
            "García^Gabriel^José^Dr.^Jr.^de^la^Concordia",
            "Dr. Gabriel José García, Jr. de la Concordia",
        ),
        ("^Jane", "Jane"),
        ("Doe", "Doe"),
        ("^^^^Jr.", "Jr."),
        ("", None),
        (None, None),
    ],
)
def test_names_for_display(name: str | None, expected: str | None) -> None:
    assert display_name(name) == expected
