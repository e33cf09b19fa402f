def test_a(s3):
    z=s3.zone(); print(z.put("a/b", b"1")); print(list(z.list_all("a")))
