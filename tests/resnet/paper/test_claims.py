from resnet.networks.architectures import parse_network
from resnet.networks.cost import count
from resnet.paper.claim_forms import COUNTED
from resnet.paper.claims import CLAIMS


def test_claims_name_canonical_networks_and_their_own_ids():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        for comparison in (*claim.comparisons, *claim.beside):
            for name in (comparison.left, comparison.right):
                network = name.partition("@")[0] if isinstance(name, str) else None
                assert network is None or parse_network(network).name == network
                assert network is None or network.startswith(f"{claim.family}-")
            assert (comparison.protocol == "single") == comparison.left.startswith("cifar10-")


def test_every_claim_says_how_it_is_judged():
    """By comparisons, by a trend, or nowhere with the reason; a margin of ours stands in the claim's note."""
    for claim in CLAIMS:
        ways = [bool(claim.comparisons), claim.trend is not None, claim.judged_in == "nowhere"]
        assert sum(ways) == 1, claim.id
        assert claim.judged_in != "nowhere" or claim.note
        alike = [c for c in claim.comparisons if c.relation == "~"]
        assert all(c.margin and f"{c.margin:g} point" in claim.note for c in alike)
        assert all(c.margin is None for c in claim.comparisons if c.relation != "~")
        published = [c for c in claim.comparisons if not isinstance(c.right, str) and c.metric.endswith("error")]
        assert not published or claim.judged_in == "the paper's setting", "a published figure is no other setting's"


def test_what_is_counted_is_as_claimed():
    compared = [c for claim in CLAIMS for c in claim.comparisons if c.metric in COUNTED]
    assert len(compared) == 4
    for c in compared:
        assert getattr(count(c.left), c.metric) < c.right
