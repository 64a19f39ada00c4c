"""Words of the report that no row decides: how claims are judged, how recipes differ from the paper, what was hard."""

SCOPE = (
    "The claims that are judged here are those of the paper on the networks of this project: training and validation "
    "errors of plain nets and ResNets on CIFAR-10 and ImageNet, layer responses, gradients and costs. A verdict holds "
    "for the setting that it stands under: its data, length of schedule, precision and batch norm group. Only the "
    "paper's own setting speaks of the paper's figures; a shortened schedule or a smaller data set answers a question "
    "of its own. Not judged at all: detection and localisation (no detector here), the ensemble on ImageNet's test set "
    "(its labels are not public)."
)
HOW = (
    "Errors are of the last epoch, of all validation images, in percent; none was chosen by looking at it. Ours are "
    "the mean ± the standard deviation over seeds. A difference of two networks is judged over seeds by Student's "
    "paired t interval: networks with the same seed see the same batches. Welch's interval, without pairs, stands "
    "beside it."
)
VERDICT_ROWS = (
    ("holds", "every comparison has its 95 % interval on the claimed side of zero"),
    (
        "alike",
        "the claim is that networks differ little, and two one-sided t-tests (TOST) at 5 % put the mean difference "
        "within the margin that it states",
    ),
    (
        "fails",
        "one comparison has its interval on the other side, at the level of 5 % divided by the number of the claim's "
        "comparisons (Bonferroni); of an alike claim, outside the margin",
    ),
    ("not decided", "the seeds at hand leave it open; one seed always does"),
    ("not run", "a network that it names was not trained here, or the setting cannot speak of it"),
)
TRENDS = (
    "A trend goes by Page's test over the seeds that trained all depths, one-sided at 2.5 %; the slope of the error on "
    "log2 of the depth, by linear regression over all trainings, stands beside it. Each claim is judged by itself: "
    "among forty claims on networks that do not differ, about one would be said to hold by chance."
)
MCNEMAR = (
    "Where the finished networks' predictions are kept, McNemar's exact test says of two trained networks, also of a "
    "single seed, whether one is right more often on this test set than chance would have it. It is a statement on "
    "these two networks, not on their architectures: other seeds would give other networks."
)
POWER = (
    "How small a difference can be decided depends on the seeds and on how much differences vary. ResNet-110 varies "
    "by 0.16 points from run to run in the paper, so that a difference of two such networks has a standard deviation "
    "of about 0.23: the first row below. What the differences of this report would need is in the tables of "
    "comparisons."
)
DEPARTURES = (
    "Where the text of the paper leaves a choice, or the recipe called @paper differs from it. A choice that is a "
    "field of the recipe can be made the other way on the command line; a field without an effect is refused."
)
DEPARTURE_ROWS = (
    (
        "padding of CIFAR-10 images",
        "4 pixels on each side; colour not said. The work that it follows (Lee et al., DSN) padded preprocessed "
        "images: zeros after the mean is subtracted",
        "zeros before the mean is subtracted: a black border, about -1.9 standard deviations",
        "images.border mean pads with the training set's mean colour, rounded to grey levels",
    ),
    (
        "place of the per-pixel mean",
        "Caffe subtracts it at the image's place, before the crop",
        "at the crop's place, up to 4 pixels away",
        "none",
    ),
    (
        "PCA colour, ImageNet",
        "that of Krizhevsky et al. 2012, whose text multiplies the draws by the eigenvalues",
        "by the eigenvalues: 5.5, 0.5 and 0.1 grey levels. Krizhevsky's own code takes their square roots: 11.9, "
        "3.5, 1.7",
        "images.color pca is the text, pca-std the code",
    ),
    (
        "initialisation of the last layer",
        "He et al. 2015, for all layers as far as is said",
        "He et al. for fc too, fan-in: the first loss of ResNet-56 is 5.5 to 5.8; a public Caffe log of the recipe "
        "has 4.1",
        "none",
    ),
    (
        "division by a standard deviation",
        "not said: the per-pixel mean is subtracted, no more",
        "divided by one standard deviation a channel; the first batch norm undoes it but for its epsilon",
        "none",
    ),
    (
        "images that batch norm normalises over",
        "64 on CIFAR-10 (128 on two GPUs), 32 on ImageNet (256 on eight, the authors' release)",
        "the same since November 27, 2026; before, a worker's whole part of the batch",
        "bn_batch",
    ),
    (
        "batch norm's statistics in evaluation",
        "true averages over a large batch after training, by the release, which is of ImageNet's networks",
        "the same on ImageNet; on CIFAR-10 the moving average of the training",
        "bn_examples",
    ),
    (
        "precision",
        "float32",
        "auto: bfloat16 where the machine multiplies it natively; finished networks are tested in float32",
        "precision float32",
    ),
    (
        "when lr is divided on ImageNet",
        "when the error plateaus, by hand; whose error is not said",
        "after 5 epochs without a lower VALIDATION error, by one crop, which is also the error that is reported",
        "data.holdout keeps training images apart for it",
    ),
    (
        "SGD",
        "Caffe's: lr is inside of the velocity",
        "PyTorch's: lr outside. Equal while lr is constant, different for some steps after it changes",
        "none",
    ),
    (
        "order of examples",
        "shuffled in each epoch (the release)",
        "shuffled in windows of 16 row groups, 8,192 images of CIFAR-10",
        "data.window",
    ),
    (
        "schedule of CIFAR-10",
        "chosen on 45,000 of the training images, then trained on all 50,000 as far as can be read",
        "all 50,000; nothing was chosen again",
        "data.holdout 5000",
    ),
)
EASY = (
    "Easy: the networks. Table 1 and the rule of 6n+2 layers fix them; parameters agree with Table 6 to the printed "
    "digits and multiply-adds with Table 1, as far as it is consistent with itself. The optimiser, the milestones and "
    "the evaluation on CIFAR-10 are stated in full. Published weights of others load unchanged."
)
HARD = (
    "Hard: what is not written. The border of padded crops, the strength of the colour augmentation, the group of "
    "batch norm, whose error the plateaus were read from and by which rule, how batch norm's statistics were taken "
    "for CIFAR-10; the authors' release answers some of it. Hard, too, is compute: a CIFAR-10 training of the "
    "paper's length takes some 2 to 13 hours of two cores for 20 to 110 layers (an estimate from shorter ones), so "
    "that few are run, with few seeds. And a large difference is not yet an explanation: plain-56 starts with "
    "gradients that are thousands of times larger in the first layer than in the last (2,780 times on one batch of "
    "32 images before training); at lr 0.1 its first three steps multiply the weights of its first convolution by "
    "65, after which batch norm makes its effective lr 4,000 times smaller. Much of its gap may be that accident of "
    "the start; the size of the gap says nothing of Figure 1."
)
CHOSEN = (
    "Learning rate, momentum, decay, batch and milestones were not chosen by these trainings: they are the recipes', "
    "but for what the table above names, which was set by the time and the data at hand. Two decisions looked at "
    "test errors: CIFAR-10 was trained for 12,800 steps after the errors of 6,400 steps were known, and gentle "
    "starts are a control that was planned after the errors of plain-56. Searches (jobs/search_recipe.py) judge by "
    "training images that are held out, and their trials are no rows here. Curves show validation errors; no epoch "
    "was selected by them."
)
PLATEAU = (
    "In {settings} the learning rate itself is divided by looking at the validation error that is reported, as the "
    "paper's recipe for ImageNet has it, unless images were held out."
)
DEPTHS = (
    "Error against depth: plain nets dashed, ResNets solid, a colour a setting; bars are 95 % intervals of the mean "
    "over seeds, none with one seed. The paper's are of its own schedule, and only the paper's setting may be compared "
    "with them; they are drawn for the shape. Lines that leave the picture go to networks that hardly train."
)
GRADIENTS = (
    "the gradient norm of the first convolution over that of the last one, before the update of a step, and in "
    "parentheses the norm of the first one's weights"
)
