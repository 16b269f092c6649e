"""MovieLens as a log."""

import zipfile

import pytest

from ihas_jax.data.raw import formats
from ihas_jax.errors import InputError

USERS = "1::F::25::7::55117\n2::M::1::10::48067\n"
MOVIES = "10::Toy Story: One (1995)::Animation|Comedy\n20::Misérables, Les (1998)::Drama\n"
RATINGS = "1::10::4::978300760\n2::20::3::978302109\n"


def movielens(tmp_path, ratings=RATINGS, users=USERS, movies=MOVIES):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (("ratings", ratings), ("users", users), ("movies", movies)):
            archive.writestr(f"ml-1m/{name}.dat", text.encode("latin-1"))
    return formats.movielens(path)


def test_movielens(tmp_path, read):
    log = movielens(tmp_path)
    rows, bad, _ = read(log)
    names = "user movie gender age occupation zip year genres genre hour month"
    assert [name for name, _ in log.fields] == names.split()
    toy = ("1995", "Animation|Comedy", "Animation")
    assert rows == [
        (1, "1", "10", "F", "25", "7", "55117", *toy, "22", "12"),
        (0, "2", "20", "M", "1", "10", "48067", "1998", "Drama", "Drama", "22", "12"),
    ]
    assert bad == 0


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1::10::4", "has 3 columns, not 4"),
        ("1::10::six::1", "the rating is not 1 to 5"),
        ("1::10::9::1", "the rating is not 1 to 5"),
        ("1::10::4::noon", "the time is not in seconds"),
        ("3::10::4::1", "the user is not in users.dat"),
        ("1::30::4::1", "the movie is not in movies.dat"),
    ],
)
def test_a_bad_rating_is_named_and_left_out(tmp_path, line, complaint, read):
    log = movielens(tmp_path, RATINGS + line + "\n" + RATINGS)
    rows, bad, complaints = read(log)
    assert (len(rows), bad) == (4, 1)
    assert complaints == [f"ratings.dat in {log.paths[0]}, line 3: {complaint}"]


def test_users_and_movies_must_be_whole(tmp_path, read):
    with pytest.raises(InputError, match=r"users\.dat in .*, line 3: has 1 columns, not 5"):
        read(movielens(tmp_path, users=USERS + "x\n"))
    with pytest.raises(InputError, match=r"movies\.dat in .* lists a movie twice"):
        read(movielens(tmp_path, movies=MOVIES + MOVIES))


def test_a_zip_that_is_none(tmp_path, read, write):
    whole = movielens(tmp_path).paths[0].read_bytes()
    write(tmp_path / "ml-1m.zip", whole[:100])
    with pytest.raises(InputError, match="no zip file, or a damaged one"):
        read(formats.movielens(tmp_path / "ml-1m.zip"))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("ratings.csv", "")
    with pytest.raises(InputError, match=r"does not hold one ratings\.dat; it holds ratings\.csv"):
        read(formats.movielens(tmp_path / "other.zip"))
