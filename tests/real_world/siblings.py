"""What users of torchvision, timm, WebDataset, datasets, Pillow and MLflow meet elsewhere and no row of faults names.

An index like that of rows.py, with numbers from 101 on.
"""

# number: (what it is about, its tests)
SIBLINGS: dict[int, tuple[str, tuple[str, ...]]] = {
    101: (
        "resource forks in tars that a Mac packed",
        (
            "tests/pipelines/preparation/formats/test_webdataset_labels.py::test_a_tar_that_a_mac_packed_has_no_images_of_resource_forks",
        ),
    ),
    102: (
        "labels that pandas made floats",
        (
            "tests/pipelines/preparation/formats/test_parquet_columns.py::test_labels_that_pandas_made_floats_are_read_and_lists_are_named",
        ),
    ),
    103: (
        "a class whose accents are written in two forms of Unicode",
        (
            "tests/pipelines/preparation/formats/test_class_folders.py::test_accents_in_two_forms_of_unicode_are_one_class",
        ),
    ),
    104: (
        "images/ and labels/ of detection and segmentation taken for classes",
        (
            "tests/pipelines/preparation/formats/test_class_folders.py::test_sets_for_detection_and_segmentation_are_no_two_classes",
        ),
    ),
    105: (
        "two images in a WebDataset sample, such as image and mask",
        (
            "tests/pipelines/preparation/formats/test_webdataset_labels.py::test_of_two_images_of_a_sample_one_is_chosen_by_its_suffix",
        ),
    ),
    106: (
        "ground truth against a list of synsets in another order",
        ("tests/pipelines/preparation/formats/test_tar_archives.py::test_a_list_of_synsets_sorted_by_wnid_is_refused",),
    ),
    107: (
        "code in a pickled CIFAR batch",
        ("tests/pipelines/preparation/formats/test_cifar.py::test_nothing_in_a_pickled_batch_can_run",),
    ),
    108: (
        "a class in other capitals in val",
        (
            "tests/pipelines/preparation/formats/test_class_folders.py::test_a_class_in_other_capitals_in_val_is_named_with_its_like",
        ),
    ),
    109: (
        "a class that is called train",
        ("tests/pipelines/preparation/discovery/test_split_folders.py::test_a_class_called_train_is_a_class",),
    ),
    110: (
        "Parquet that names files instead of holding images",
        (
            "tests/pipelines/preparation/formats/test_parquet_columns.py::test_parquet_that_names_files_instead_of_holding_images_is_one_sentence",
        ),
    ),
    111: (
        "shards of an older, larger export beside the new",
        (
            "tests/pipelines/preparation/discovery/test_numbered_parts.py::test_parts_of_an_older_set_beside_the_new_are_no_more_images",
        ),
    ),
    112: (
        "files that change between listing and reading",
        (
            "tests/pipelines/preparation/formats/test_ranged_reads.py::test_a_file_that_changed_since_it_was_listed_is_one_sentence",
        ),
    ),
    113: (
        "an animation damaged behind its first frame",
        (
            "tests/pipelines/preparation/test_image_encoding.py::test_a_gif_that_is_damaged_behind_its_first_frame_is_kept",
        ),
    ),
    114: (
        "an orientation that ImageMagick wrote into a PNG",
        ("tests/resnet/images/test_image_orientation.py::test_imagemagicks_note_in_a_png_counts",),
    ),
    115: (
        "strides of the paper and of torchvision in weights of equal shapes",
        ("tests/pipelines/models/test_preprocessing.py::test_the_stride_that_no_shape_tells_is_not_taken_on_trust",),
    ),
    116: (
        "weights on the web with their configuration beside",
        ("tests/pipelines/models/test_weight_files.py::test_weights_are_read_from_the_web_with_what_lies_beside",),
    ),
    117: (
        "a folder of the hub",
        (
            "tests/pipelines/models/test_weight_files.py::test_a_folder_of_the_hub_says_all_itself_and_becomes_a_checkpoint",
        ),
    ),
    118: (
        "a relative path of sqlite in several processes",
        (
            "tests/pipelines/tracking/test_mlflow_store.py::test_a_relative_path_of_sqlite_means_the_same_file_in_every_process",
        ),
    ),
    119: (
        "registered versions that point into a run's folder",
        (
            "tests/pipelines/tracking/test_mlflow_model.py::test_a_version_of_before_that_points_into_a_runs_folder_still_resolves",
        ),
    ),
    120: (
        "a storage of MinIO, with its endpoint in the URI",
        ("tests/real_world/test_training_rows.py::test_a_storage_with_an_endpoint_in_its_options_holds_runs",),
    ),
    121: (
        "a kill in the middle of a save",
        ("tests/real_world/test_training_rows.py::test_a_kill_in_the_middle_of_a_save_leaves_the_last_whole_one",),
    ),
    122: (
        "Ctrl-C that is held down",
        ("tests/real_world/test_training_rows.py::test_ctrl_c_that_is_held_down_ends_at_once",),
    ),
    123: (
        "relative paths in a job that Ray runs in a folder of its own",
        ("tests/real_world/test_training_rows.py::test_a_relative_place_in_a_job_of_ray_is_refused",),
    ),
}
